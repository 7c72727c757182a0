"""Counts of caches that answer within a microsecond: plain integers that grow with each look-up, read when metrics are.

A `Counter.add` for each look-up would take longer than the look-up. The instruments are `hub.cache.requests`, `.size`
and `.evictions`; caches of one name are counted together.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Observation

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.cache_watch import AccessLog

_log = logging.getLogger("hubscope")
# Caches that are made anew for each request have one name; code that makes names is stopped here.
MOST_NAMES: Final = 200
OTHERS: Final = "*"
# 1,024 of a cache's keys tell its curve within 2 % (Waldspurger et al. 2015, figure 5: 1 % at 8,192).
_LOGGED_KEYS: Final = 1024
_LOGGED_LOOKUPS: Final = 100_000  # a cache; 1.8 MB of events at most
_known: set[str] = set()
_lock = threading.Lock()


class Counts:
    """One cache. `x += 1` of an integer is one step of the interpreter before another thread runs."""

    __slots__ = ("__weakref__", "_sent", "access_log", "evictions", "hits", "inside", "misses", "name", "size")

    def __init__(self, name: str, capacity: int | None, size: Callable[[], int | None]) -> None:
        self.name = bounded_name(name)
        self.hits = self.misses = self.evictions = 0
        self.inside = 0  # the thread whose look-up runs: what the cache does meanwhile is not another look-up
        self.size = size
        one_in = 1 if capacity is None else max(1, min(64, capacity // _LOGGED_KEYS))
        self.access_log = AccessLog(self.name, capacity, "hot", one_in, _LOGGED_LOOKUPS)
        self._sent = (0, 0, 0)

    def rename(self, name: str) -> None:
        """The cache turned out to be that of a function."""
        self.name = self.access_log.name = bounded_name(name)

    def looked_up(self, key: object, hit: bool) -> None:
        """Count one look-up."""
        try:
            if hit:
                self.hits += 1
            else:
                self.misses += 1
            self.access_log.note(key, hit)
        except Exception:  # noqa: BLE001 - a key whose hash raises; never into the application
            _log.debug("a look-up in cache %s could not be logged", self.name, exc_info=True)

    def grown(self) -> tuple[int, int, int]:
        """Hits, misses and evictions since the last time."""
        now = (self.hits, self.misses, self.evictions)
        before, self._sent = self._sent, now
        return now[0] - before[0], now[1] - before[1], now[2] - before[2]


def bounded_name(name: str) -> str:
    """The name, or `*` where there are too many already."""
    if name not in _known:
        with _lock:
            if len(_known) >= MOST_NAMES:
                return OTHERS
            _known.add(name)
    return name


# (name, capacity, items held or None, hits, misses, evictions since the last time) of one cache
Row = tuple[str, int | None, int | None, int, int, int]


class Readings:
    """What every library's caches tell each time that metrics are read: one instrument, since a second one of the
    same name would not be asked."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Iterable[Row]]] = []
        self._evicted: dict[str, int] = {}
        self._handles: signals.Handles | None = None

    def watch(self, rows: Callable[[], Iterable[Row]]) -> None:
        """Ask `rows` from now on."""
        if rows not in self._sources:
            self._sources.append(rows)
        handles = signals.handles()
        if handles is None or handles is self._handles:
            return
        self._handles = handles
        self._evicted = {}
        metric = next(m for m in names.METRICS if m.name == names.METRIC_CACHE_EVICTIONS)
        handles.meter.create_observable_counter(
            metric.name, [functools.partial(self._observe, handles)], unit=metric.unit, description=metric.brief
        )

    def _observe(self, handles: signals.Handles, options: CallbackOptions) -> list[Observation]:
        # The SDK asks observable instruments first and collects afterwards: what is added here is sent with these.
        if handles is not self._handles:  # those of a provider before
            return []
        requests, size = handles.instrument(names.METRIC_CACHE_REQUESTS), handles.instrument(names.METRIC_CACHE_SIZE)
        held: dict[str, tuple[int, int | None]] = {}
        for name, capacity, items, hits, misses, evictions in chain.from_iterable(rows() for rows in self._sources):
            base = {names.HUB_CACHE_NAME: name, names.HUB_CACHE_TIER: "hot"}
            for result, count in (("hit", hits), ("miss", misses)):
                if count:
                    requests.add(count, {**base, names.HUB_CACHE_RESULT: result})
            if items is not None:
                before = held.get(name, (0, 0))
                both = None if capacity is None or before[1] is None else before[1] + capacity
                held[name] = (before[0] + items, both)
            self._evicted[name] = self._evicted.get(name, 0) + evictions
        for name, (items, capacity) in held.items():
            attributes: dict[str, Any] = {names.HUB_CACHE_NAME: name, names.HUB_CACHE_TIER: "hot"}
            if capacity is not None:
                attributes[names.HUB_CACHE_CAPACITY] = capacity
            size.set(items, attributes)
        return [
            Observation(count, {names.HUB_CACHE_NAME: name, names.HUB_CACHE_TIER: "hot"})
            for name, count in self._evicted.items()
            if count
        ]

    def start_afresh(self) -> None:
        """A forked child: what was counted before is the parent's to tell."""
        self._evicted = {}
        for rows in self._sources:
            for _ in rows():
                pass


readings: Final = Readings()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    try:
        readings.start_afresh()
    except Exception:  # noqa: BLE001 - a cache whose state was half written by another thread
        _log.debug("the counts of caches before a fork could not be dropped", exc_info=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Registry:
    """The counts of the living caches of one library, by identity: caches may be unhashable, or compare by content."""

    def __init__(self) -> None:
        self._counts: dict[int, tuple[weakref.ref[Any], Counts]] = {}
        self._gone: list[Counts] = []

    def get(self, cache: object) -> Counts | None:
        """Its counts, or None for a cache that is not known."""
        found = self._counts.get(id(cache))
        return None if found is None else found[1]

    def add(self, cache: Any, name: str, capacity: int | None, size: Callable[[Any], int | None]) -> Counts:
        """Know a cache from now on. `size` gives the number of items it holds."""
        key = id(cache)

        def gone(_: object) -> None:
            found = self._counts.pop(key, None)
            if found is not None:
                self._gone.append(found[1])  # what it counted since the last reading is still to be told

        reference = weakref.ref(cache, gone)

        def held() -> int | None:
            alive = reference()
            return None if alive is None else size(alive)

        counts = Counts(name, capacity, held)
        self._counts[key] = (reference, counts)
        readings.watch(self._rows)
        return counts

    def clear(self) -> None:
        """Know none any more."""
        self._counts.clear()
        self._gone.clear()

    def _rows(self) -> Iterable[Row]:
        gone, self._gone = self._gone, []
        for counts in gone:
            yield (counts.name, None, None, *counts.grown())
        for _, counts in list(self._counts.values()):
            try:
                items = counts.size()
            except Exception:  # noqa: BLE001 - it changed at this moment; the next reading has it
                items = None
            yield (counts.name, counts.access_log.capacity, items, *counts.grown())


def made_by(library: str, kind: type, depth: int = 2) -> str:
    """A name for a cache that has none: its class where that is the application's, else the function that made it."""
    if kind.__module__.partition(".")[0] != library:
        return f"{kind.__module__}.{kind.__qualname__}"
    frame: Any = sys._getframe(depth)
    ours = __name__.rpartition(".")[0]
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] != library and not module.startswith(ours):
            function = frame.f_code.co_qualname
            return f"{module}.{kind.__name__}" if function == "<module>" else f"{module}.{function}.{kind.__name__}"
        frame = frame.f_back
    return f"{kind.__module__}.{kind.__qualname__}"

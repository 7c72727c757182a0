"""diskcache: hits, misses, culled items, the number of items, and a sampled access log; its statements are sqlite3's.

Every look-up of a cache, of a `FanoutCache`'s shard, an `Index` or a memoized function goes through `Cache.get`. Only a
default that cannot be a value tells a miss, so the call is given one and its answer is put right. How many items there
are is asked in a transaction of the application's own (`_cull` is part of each write), every 5 s at most: a connection
of ours would open a cache again that was closed. Its limit is in bytes, so no capacity is told.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Final

from opentelemetry.context import attach, detach, get_value, set_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.cache_counts import Counts, Registry
from hubscope.instrumentation.libraries.patches import Patches

_COUNT_EVERY_S: Final = 5.0
_patches = Patches()
_registry = Registry()
_absent: Final = object()


class _Held:
    """The last number of items that a write has seen."""

    __slots__ = ("at_s", "items")

    def __init__(self) -> None:
        self.items: int | None = None
        self.at_s = -_COUNT_EVERY_S


_held: dict[int, _Held] = {}


def _name(directory: str) -> str:
    """The folder's name, without the path to it; a shard's is that of its whole cache."""
    above, name = os.path.split(os.path.normpath(directory))
    return os.path.basename(above) if len(name) == 3 and name.isdigit() else name


def _counts(cache: Any) -> Counts | None:
    if not _patches.on or signals.handles() is None or get_value("suppress_instrumentation"):
        return None
    found = _registry.get(cache)
    if found is None:
        held = _held[id(cache)] = _Held()
        found = _registry.add(cache, _name(cache.directory), None, lambda _: held.items)
    return found


def _get(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get(
        self: Any,
        key: Any,
        default: Any = None,
        read: bool = False,
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        counts = _counts(self)
        if counts is None:
            return original(self, key, default, read, expire_time, tag, retry)
        found = original(self, key, _absent, read, expire_time, tag, retry)
        several = expire_time or tag
        hit = (found[0] if several else found) is not _absent
        counts.looked_up(key, hit)
        if hit:
            return found
        return (default, *found[1:]) if several else default

    return get


def _cull(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _cull(self: Any, now: float, sql: Any, cleanup: Any, limit: int | None = None) -> Any:
        counts = _counts(self)
        if counts is None:
            return original(self, now, sql, cleanup, limit)

        def counted(filename: Any) -> Any:
            counts.evictions += 1
            return cleanup(filename)

        result = original(self, now, sql, counted, limit)
        held = _held.get(id(self))
        if held is not None and monotonic() - held.at_s >= _COUNT_EVERY_S:
            held.at_s = monotonic()
            token = attach(set_value("suppress_instrumentation", True))
            try:
                ((held.items,),) = sql('SELECT value FROM Settings WHERE key = "count"').fetchall()
            finally:
                detach(token)
        return result

    return _cull


class DiskcacheInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Counts what diskcache's caches are asked."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(self._patch, "diskcache.core")

    def _patch(self, module: Any) -> None:
        if not _patches.on:
            return
        _patches.put(module.Cache, "get", _get)
        _patches.put(module.Cache, "_cull", _cull)

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()
        _registry.clear()
        _held.clear()

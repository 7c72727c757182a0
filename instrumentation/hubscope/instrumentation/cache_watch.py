"""What a cache is asked and what a miss costs: counts, load times, and the access log that hit-rate predictions need.

The log holds 64-bit hashes of the keys in order and one digit a look-up, in stretches of 1,000; the keys themselves
never leave the process.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import threading
import weakref
from typing import Any, Final

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.measure import Measure

_log = logging.getLogger("hubscope")
STRETCH: Final = 1000
# One salt a process: hashes of one run can be compared with each other, and cannot be looked up in a table.
_salt = os.urandom(8)
_logs: weakref.WeakSet[AccessLog] = weakref.WeakSet()
_MIX: Final = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: Fibonacci hashing


class AccessLog:
    """The order of a cache's look-ups, in stretches of 1,000. Safe in any thread.

    `one_in` keys is logged, with all its look-ups: the stack distances of a cache follow from a sample of its keys
    (Waldspurger et al. 2015, SHARDS). After `at_most` look-ups the log ends.
    """

    def __init__(
        self, name: str, capacity: int | None = None, tier: str = "hot", one_in: int = 1, at_most: int | None = None
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.tier = tier
        self._one_in = one_in
        self._left = at_most
        self._lock = threading.Lock()
        self._keys: list[str] = []
        self._hits: list[str] = []
        _logs.add(self)

    def note(self, key: object, hit: bool) -> None:
        """One look-up."""
        if self._left is not None and self._left <= 0:
            return
        number = key_number(key)
        # Mixed first: an integer's hash is itself, and every key of a program that counts in sixteens is one of 16.
        if self._one_in > 1 and (number * _MIX >> 40) % self._one_in:
            return
        digest = number_hash(number)
        with self._lock:
            self._keys.append(digest)
            self._hits.append("1" if hit else "0")
            if self._left is not None:
                self._left -= 1
            full = len(self._keys) >= STRETCH
        if full:
            self.flush()

    def flush(self) -> None:
        """Send the stretch that is not sent yet."""
        with self._lock:
            keys, hits = self._keys, self._hits
            self._keys, self._hits = [], []
        handles = signals.handles()
        if not keys or handles is None:
            return
        attributes: dict[str, Any] = {
            names.HUB_CACHE_NAME: self.name,
            names.HUB_CACHE_TIER: self.tier,
            names.HUB_CACHE_KEYS: ",".join(keys),
            names.HUB_CACHE_HITS: "".join(hits),
        }
        if self.capacity is not None:
            attributes[names.HUB_CACHE_CAPACITY] = self.capacity
        if self._one_in > 1:
            attributes[names.HUB_CACHE_ONE_IN] = self._one_in
        try:
            handles.event(names.EVENT_CACHE_ACCESS, attributes)
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("the access log of cache %s could not be sent", self.name, exc_info=True)

    def forget(self) -> None:
        """A forked child: what is not sent yet is the parent's."""
        self._lock = threading.Lock()
        self._keys, self._hits = [], []


class CacheWatch:
    """`watch.hit(key)` on a hit, `with watch.miss(key): value = load()` on a miss. Safe in any thread."""

    def __init__(self, name: str, capacity: int | None = None, tier: str = "hot") -> None:
        self.name = name
        self.capacity = capacity
        self.tier = tier
        self._access_log = AccessLog(name, capacity, tier)
        self._hit_attributes = self._attributes("hit")
        self._miss_attributes = self._attributes("miss")

    def hit(self, key: object) -> None:
        """The cache had it."""
        self._looked_up(key, True)

    def miss(self, key: object) -> Measure:
        """The cache did not have it: measure the load."""
        self._looked_up(key, False)
        return Measure(
            names.SPAN_CACHE_LOAD.format(cache=self.name),
            dict(self._miss_attributes),
            names.METRIC_CACHE_LOAD_DURATION,
            (names.HUB_CACHE_NAME, names.HUB_CACHE_TIER),
        )

    def size(self, items: int) -> None:
        """How many items the cache holds."""
        handles = signals.handles()
        if handles is not None:
            attributes: dict[str, Any] = {names.HUB_CACHE_NAME: self.name, names.HUB_CACHE_TIER: self.tier}
            if self.capacity is not None:
                attributes[names.HUB_CACHE_CAPACITY] = self.capacity
            handles.instrument(names.METRIC_CACHE_SIZE).set(items, attributes)

    def flush(self) -> None:
        """Send the stretch of the access log that is not sent yet."""
        self._access_log.flush()

    def _attributes(self, result: str) -> dict[str, Any]:
        return {
            names.HUB_CACHE_NAME: self.name,
            names.HUB_CACHE_TIER: self.tier,
            names.HUB_CACHE_RESULT: result,
        }

    def _looked_up(self, key: object, hit: bool) -> None:
        handles = signals.handles()
        if handles is None:
            return
        try:
            handles.instrument(names.METRIC_CACHE_REQUESTS).add(
                1, self._hit_attributes if hit else self._miss_attributes
            )
            self._access_log.note(key, hit)
        except Exception:  # noqa: BLE001 - never into the application
            _log.debug("a look-up in cache %s could not be recorded", self.name, exc_info=True)


def key_number(key: object) -> int:
    """64 bits that are equal for equal keys within one process; of a key that has no hash, those of its repr."""
    try:
        return hash(key)
    except TypeError:
        return hash(repr(key))


def number_hash(number: int) -> str:
    """64 bits in hex, from which the number cannot be found: salted, because an integer's hash is itself."""
    return hashlib.blake2b(number.to_bytes(8, "little", signed=True), digest_size=8, key=_salt).hexdigest()


def watch_cache(name: str, capacity: int | None = None, tier: str = "hot") -> CacheWatch:
    """Watch a cache of at most `capacity` items; `tier` is hot, warm or cold."""
    return CacheWatch(name, capacity, tier)


def flush_all() -> None:
    """Send what every watched cache has not sent yet."""
    for log in list(_logs):
        log.flush()


def _forget_after_fork() -> None:
    for log in list(_logs):
        log.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def flush_at_exit() -> None:
    """Send the rest when the process ends; called after the providers' own exit handlers are registered."""
    atexit.register(flush_all)

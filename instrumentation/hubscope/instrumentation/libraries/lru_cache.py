"""functools.lru_cache and functools.cache: their own counts, read when metrics are; a call costs nothing more.

`functools.lru_cache` stays the same object, also where it was imported before: its code asks for `_lru_cache_wrapper`
by another global name, whose function notes the cache weakly. Caches of the standard library and of the measuring are
left out. Evictions are misses that did not make the cache larger; a function that raised counts among them.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections.abc import Collection, Iterable
from types import CodeType
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there

from hubscope.instrumentation.libraries.cache_counts import Row, bounded_name, readings

_ASKED: Final = "_lru_cache_wrapper"
_OURS: Final = "_hubscope_lru_cache_wrapper"
_LEFT_OUT: Final = frozenset({*sys.stdlib_module_names, "hubscope", "opentelemetry", "wrapt", "google", "grpc"})
_enabled = False
_caches: weakref.WeakSet[Any] = weakref.WeakSet()
# What was read of each last time; with the cache it goes.
_before: weakref.WeakKeyDictionary[Any, tuple[int, int, int]] = weakref.WeakKeyDictionary()


def _noted(*arguments: Any) -> Any:
    wrapper: Any = functools._lru_cache_wrapper(*arguments)
    if _enabled:
        _caches.add(wrapper)
    return wrapper


def _rows() -> Iterable[Row]:
    if not _enabled:
        return
    for cache in list(_caches):
        module = str(getattr(cache, "__module__", ""))
        if module.partition(".")[0] in _LEFT_OUT:
            continue
        hits, misses, capacity, items = cache.cache_info()
        evicted = misses - items if capacity and items >= capacity else 0
        before = _before.get(cache, (0, 0, 0))
        if hits < before[0] or misses < before[1]:  # cleared, its counts with it
            before = (0, 0, 0)
        _before[cache] = (hits, misses, max(evicted, before[2]))
        if not hits and not misses and not items:
            continue
        name = bounded_name(f"{module}.{getattr(cache, '__qualname__', '')}")
        yield name, capacity, items, hits - before[0], misses - before[1], max(0, evicted - before[2])


def _renamed(code: CodeType, old: str, new: str) -> CodeType:
    """The code with a global's name replaced, in the functions it makes too."""
    return code.replace(
        co_names=tuple(new if name == old else name for name in code.co_names),
        co_consts=tuple(_renamed(c, old, new) if isinstance(c, CodeType) else c for c in code.co_consts),
    )


class LruCacheInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Notes every cache that `functools.lru_cache` makes, and those that are there."""

    def __init__(self) -> None:
        self._original: CodeType | None = getattr(self, "_original", None)

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = True
        made: Any = functools.lru_cache
        code = made.__code__
        changed = _renamed(code, _ASKED, _OURS)
        if changed != code:  # an interpreter that asks for it otherwise: only what is there now is read
            vars(functools)[_OURS] = _noted
            self._original = code
            made.__code__ = changed
        kind = functools._lru_cache_wrapper
        for found in gc.get_objects():
            if type(found) is kind:
                _caches.add(found)
        readings.watch(_rows)

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False
        if self._original is not None:
            made: Any = functools.lru_cache
            made.__code__ = self._original
            vars(functools).pop(_OURS, None)
            self._original = None
        _caches.clear()
        _before.clear()

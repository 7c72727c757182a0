"""cachetools: hits, misses, evictions, size and capacity of every cache, and a sampled access log.

Each class of the library has its own `__getitem__`, bound to its parent's when it was made: each is patched. What a
look-up does inside (`__missing__`, an eviction that reads what it puts out) is no other look-up. A dict given to
`@cached` is not seen: it has no place for a hook.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from threading import get_ident
from typing import Any

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.cache_counts import Counts, Registry, made_by
from hubscope.instrumentation.libraries.patches import Patches

_patches = Patches()
_registry = Registry()
_plain_missing: Any = None
_plain_sizeof: Any = None


def _counts(cache: Any) -> Counts | None:
    """Those of a look-up that begins here; None where nothing is measured or one is running."""
    if not _patches.on or signals.handles() is None or get_value("suppress_instrumentation"):
        return None
    found = _registry.get(cache) or _add(cache)
    return None if found.inside == get_ident() else found


def _add(cache: Any) -> Counts:
    capacity = None
    if type(cache).getsizeof is _plain_sizeof and "getsizeof" not in vars(cache) and cache.maxsize < 1 << 62:
        capacity = int(cache.maxsize)  # else it is no number of items
    return _registry.add(cache, made_by("cachetools", type(cache), 3), capacity, _items)


def _items(cache: Any) -> int:
    # Not `len(cache)`: a timed cache puts out what has expired when it is asked, which is the application's to do.
    return len(cache._Cache__data)


def _getitem(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __getitem__(self: Any, key: Any, *more: Any) -> Any:
        counts = _counts(self)
        if counts is None:
            return original(self, key, *more)
        hit = True
        if type(self).__missing__ is not _plain_missing:
            hit = key in self
        counts.inside = get_ident()
        try:
            value = original(self, key, *more)
        except KeyError:
            hit = False
            raise
        finally:
            counts.inside = 0
            counts.looked_up(key, hit)
        return value

    return __getitem__


def _get(original: Callable[..., Any]) -> Callable[..., Any]:
    """`get` and `setdefault` ask `in` first, and take the item only where it is."""

    @functools.wraps(original)
    def method(self: Any, key: Any, *more: Any, **named: Any) -> Any:
        counts = _counts(self)
        if counts is None:
            return original(self, key, *more, **named)
        before = counts.hits + counts.misses
        value = original(self, key, *more, **named)
        if counts.hits + counts.misses == before:
            counts.looked_up(key, False)
        return value

    return method


def _no_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
    """A write or a removal: what it reads is no look-up."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **named: Any) -> Any:
        counts = _counts(self)
        if counts is None:
            return original(self, *args, **named)
        counts.inside = get_ident()
        try:
            return original(self, *args, **named)
        finally:
            counts.inside = 0

    return method


def _popitem(original: Callable[..., Any]) -> Callable[..., Any]:
    """Called by the application it is no eviction; by a write it is one."""

    @functools.wraps(original)
    def popitem(self: Any) -> Any:
        if not _patches.on:
            return original(self)
        counts = _registry.get(self)
        if counts is not None and counts.inside == get_ident():
            item = original(self)
            counts.evictions += 1
            return item
        return _no_lookup(original)(self)

    return popitem


def _init(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if _patches.on and signals.handles() is not None:
            _add(self)

    return __init__


_PATCHED: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("__getitem__", _getitem),
    ("get", _get),
    ("setdefault", _get),
    ("pop", _no_lookup),
    ("__setitem__", _no_lookup),
    ("popitem", _popitem),
)


def _cached(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def cached(cache: Any, *args: Any, **kwargs: Any) -> Any:
        decorator = original(cache, *args, **kwargs)

        def named(function: Any) -> Any:
            counts = _registry.get(cache)
            if counts is not None:
                counts.rename(f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}")
            return decorator(function)

        return named

    return cached


class CachetoolsInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Counts what cachetools' caches are asked."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(self._patch, "cachetools")

    def _patch(self, module: Any) -> None:
        global _plain_missing, _plain_sizeof
        if not _patches.on:
            return
        base = module.Cache
        _plain_missing, _plain_sizeof = base.__missing__, base.getsizeof
        _patches.put(base, "__init__", _init)
        _patches.put(module, "cached", _cached)
        for kind in [k for k in vars(module).values() if isinstance(k, type) and issubclass(k, base)]:
            for name, measured in _PATCHED:
                _patches.put(kind, name, measured)

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()
        _registry.clear()

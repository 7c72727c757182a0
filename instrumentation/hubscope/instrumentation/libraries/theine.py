"""theine 2: hits, misses, evictions, size and capacity of every cache, a sampled access log, and a memoized
function's loads.

`Cache.stats()` is not used: it counts its own reading.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope import semconv as names
from hubscope.instrumentation import signals
from hubscope.instrumentation.libraries.cache_counts import Counts, Registry, made_by
from hubscope.instrumentation.libraries.patches import Patches
from hubscope.instrumentation.measure import Measure

_patches = Patches()
_registry = Registry()


def _counts(cache: Any) -> Counts | None:
    if not _patches.on or signals.handles() is None or get_value("suppress_instrumentation"):
        return None
    return _registry.get(cache) or _add(cache)


def _add(cache: Any) -> Counts:
    return _registry.add(cache, made_by("theine", type(cache), 3), int(cache.max_size), len)


def _init(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if _patches.on and signals.handles() is not None:
            _add(self)

    return __init__


def _get(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get(self: Any, key: Any) -> Any:
        found = original(self, key)
        counts = _counts(self)
        if counts is not None:
            counts.looked_up(key, found[1])
        return found

    return get


def _get_or_compute(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _get_or_compute(self: Any, key: Any, fn: Callable[[], Any]) -> Any:
        counts = _counts(self)
        if counts is None:
            return original(self, key, fn)
        computed = False

        def load() -> Any:
            nonlocal computed
            computed = True
            attributes = {
                names.HUB_CACHE_NAME: counts.name,
                names.HUB_CACHE_TIER: "hot",
                names.HUB_CACHE_RESULT: "miss",
            }
            with Measure(
                names.SPAN_CACHE_LOAD.format(cache=counts.name),
                attributes,
                names.METRIC_CACHE_LOAD_DURATION,
                (names.HUB_CACHE_NAME, names.HUB_CACHE_TIER),
            ):
                return fn()

        try:
            return original(self, key, load)
        finally:
            counts.looked_up(key, not computed)

    return _get_or_compute


def _with_loader(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def with_loader(self: Any, loader: Any, *args: Any, **kwargs: Any) -> Any:
        counts = _registry.get(self)
        if counts is not None:  # the cache of a memoized function
            counts.rename(f"{getattr(loader, '__module__', '')}.{getattr(loader, '__qualname__', '')}")
        return original(self, loader, *args, **kwargs)

    return with_loader


def _remove_keys(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _remove_keys(self: Any, keys: Any) -> Any:
        counts = _registry.get(self)
        if counts is not None:
            counts.evictions += len(keys)
        return original(self, keys)

    return _remove_keys


_PATCHED: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("__init__", _init),
    ("get", _get),
    ("_get_or_compute", _get_or_compute),
    ("with_loader", _with_loader),
    ("_remove_keys", _remove_keys),
)


class TheineInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Counts what theine's caches are asked."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(self._patch, "theine.theine")

    def _patch(self, module: Any) -> None:
        kind = module.Cache
        if not _patches.on or not hasattr(kind, "_get_or_compute"):  # theine 1 and before: another cache
            return
        for name, measured in _PATCHED:
            _patches.put(kind, name, measured)

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()
        _registry.clear()

"""usearch: `Index.search` and `Index.add`, patched when the application imports the library, never before."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sized
from typing import Any

from opentelemetry.context import get_value
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope import semconv as names
from hubscope.instrumentation import manual, signals

_enabled = False
# An index has no name of its own; a file it was loaded from or saved to gives it one.
_UNNAMED = "usearch"


def _index_name(index: Any) -> str:
    path = getattr(index, "path", None)
    return os.path.basename(os.fsdecode(path)) if path else _UNNAMED


def _facts(index: Any) -> dict[str, Any]:
    kind = getattr(index, "metric_kind", None)
    facts: dict[str, Any] = {names.DB_SYSTEM_NAME: "usearch", names.HUB_VECTOR_SIZE: len(index)}
    if kind is not None:
        facts[names.HUB_VECTOR_METRIC] = _METRICS.get(str(getattr(kind, "name", kind)).lower(), str(kind).lower())
    dimensions = getattr(index, "ndim", None)
    if dimensions is not None:
        facts[names.HUB_VECTOR_DIMENSIONS] = int(dimensions)
    return facts


_METRICS = {"cos": "cosine", "l2sq": "l2", "ip": "ip"}


def _search(original: Callable[..., Any], index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    facts = _facts(index)
    facts[names.HUB_VECTOR_TOP_K] = int(kwargs.get("count", args[1] if len(args) > 1 else 10))
    facts[names.HUB_VECTOR_INDEX_TYPE] = "flat" if kwargs.get("exact") else "hnsw"
    searched = _rows(kwargs.get("vectors", args[0] if args else None))
    if searched > 1:  # OpenTelemetry: the batch size is set only where it is 2 or more
        facts[names.DB_OPERATION_BATCH_SIZE] = searched
    running = manual.running_vector_block()
    if running is not None:
        running.complete(facts)
        return original(index, *args, **kwargs)
    with manual.vector_search(
        _index_name(index),
        top_k=facts[names.HUB_VECTOR_TOP_K],
        dimensions=facts.get(names.HUB_VECTOR_DIMENSIONS),
        metric=facts.get(names.HUB_VECTOR_METRIC),
        index_type=facts[names.HUB_VECTOR_INDEX_TYPE],
        size=facts[names.HUB_VECTOR_SIZE],
        system="usearch",
        batch_size=facts.get(names.DB_OPERATION_BATCH_SIZE),
    ):
        return original(index, *args, **kwargs)


def _rows(vectors: Any) -> int:
    """How many vectors an array holds."""
    shape: Any = getattr(vectors, "shape", ())
    return int(shape[0]) if len(shape) == 2 else 1


def _add(original: Callable[..., Any], index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    running = manual.running_vector_block()
    if running is not None:
        running.complete({names.DB_SYSTEM_NAME: "usearch"})
        return original(index, *args, **kwargs)
    keys = kwargs.get("keys", args[0] if args else None)
    vectors = kwargs.get("vectors", args[1] if len(args) > 1 else None)
    count = len(keys) if isinstance(keys, Sized) else _rows(vectors)
    with manual.vector_upsert(_index_name(index), batch_size=count, system="usearch"):
        return original(index, *args, **kwargs)


_PATCHED: tuple[tuple[str, Callable[..., Any]], ...] = (("search", _search), ("add", _add))


class UsearchInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures usearch indexes."""

    def __init__(self) -> None:
        self._patched: list[tuple[Any, str, Any]] = getattr(self, "_patched", [])

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = True
        register_post_import_hook(self._patch, "usearch.index")

    def _patch(self, module: Any) -> None:
        if not _enabled or self._patched:
            return
        for name, measured in _PATCHED:
            original = vars(module.Index).get(name)
            if original is not None:
                setattr(module.Index, name, _method(original, measured))
                self._patched.append((module.Index, name, original))

    def _uninstrument(self, **kwargs: Any) -> None:
        global _enabled
        _enabled = False
        while self._patched:
            owner, name, original = self._patched.pop()
            setattr(owner, name, original)


def _method(original: Callable[..., Any], measured: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _enabled or signals.handles() is None or get_value("suppress_instrumentation"):
            return original(self, *args, **kwargs)
        return measured(original, self, args, kwargs)

    return method

"""hnswlib: `knn_query` and `add_items` of both index classes, patched when the application imports the library."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation.libraries.vector_calls import Call, VectorPatches, argument, rows

_patches = VectorPatches()


def _search(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    graph = type(index).__name__ != "BFIndex"
    return Call(
        "hnswlib",
        "hnswlib",
        top_k=int(argument(args, kwargs, 1, "k", 1)),
        dimensions=int(index.dim) if hasattr(index, "dim") else None,
        metric=str(index.space) if hasattr(index, "space") else None,
        index_type="hnsw" if graph else "flat",
        size=int(index.get_current_count()) if graph else None,
        filtered=argument(args, kwargs, 3 if graph else 2, "filter") is not None,
        batch_size=rows(argument(args, kwargs, 0, "data")),
    )


def _add(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return Call("hnswlib", "hnswlib", search=False, batch_size=rows(argument(args, kwargs, 0, "data")))


class HnswlibInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures hnswlib indexes."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(_patch, "hnswlib")

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()


def _patch(module: Any) -> None:
    if not _patches.on:
        return
    for kind in (getattr(module, "Index", None), getattr(module, "BFIndex", None)):
        if kind is not None:
            _patches.measure(kind, "knn_query", _search)
            _patches.measure(kind, "add_items", _add)

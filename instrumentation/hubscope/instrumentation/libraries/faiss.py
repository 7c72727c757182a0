"""faiss: `search`, `add` and `add_with_ids` of every index class, since the library gives each class its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation.libraries.vector_calls import Call, VectorPatches, argument, dimensions, rows

_patches = VectorPatches()
_METRICS: Final = {0: "ip", 1: "l2"}  # faiss::MetricType
# The first that stands in the class's name. An IVF index whose lists are searched by HNSW is one of lists.
_KINDS: Final = ("IVF", "HNSW", "NSG", "NNDescent", "LSH", "PQ", "Flat")


def _index_type(index: Any) -> str:
    kind = type(index).__name__
    if kind in ("IndexIDMap", "IndexIDMap2", "IndexPreTransform", "IndexRefineFlat"):
        inner = getattr(index, "index", None) or getattr(index, "base_index", None)
        if inner is not None:
            kind = type(inner).__name__
    return next((known.lower() for known in _KINDS if known in kind), kind.removeprefix("Index").lower())


def _search(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    queries = argument(args, kwargs, 0, "x")
    binary = type(index).__name__.startswith("IndexBinary")
    params = kwargs.get("params")
    return Call(
        "faiss",
        "faiss",
        top_k=int(argument(args, kwargs, 1, "k")),
        dimensions=int(index.d) if hasattr(index, "d") else dimensions(queries),
        metric="hamming" if binary else _METRICS.get(int(getattr(index, "metric_type", -1))),
        index_type=_index_type(index),
        size=int(index.ntotal),
        filtered=getattr(params, "sel", None) is not None,
        batch_size=rows(queries),
    )


def _add(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return Call("faiss", "faiss", search=False, batch_size=rows(argument(args, kwargs, 0, "x")))


class FaissInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures faiss indexes."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(_patch, "faiss")

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()


def _patch(module: Any) -> None:
    if not _patches.on:
        return
    bases = tuple(kind for kind in (getattr(module, "Index", None), getattr(module, "IndexBinary", None)) if kind)
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and issubclass(kind, bases):
            _patches.measure(kind, "search", _search)
            _patches.measure(kind, "add", _add)
            _patches.measure(kind, "add_with_ids", _add)

"""usearch: `Index.search` and `Index.add`, patched when the application imports the library, never before."""

from __future__ import annotations

import os
from collections.abc import Collection, Sized
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation.libraries.vector_calls import Call, VectorPatches, argument, rows

_patches = VectorPatches()
# An index has no name of its own; a file it was loaded from or saved to gives it one.
_UNNAMED = "usearch"


def _index_name(index: Any) -> str:
    path = getattr(index, "path", None)
    return os.path.basename(os.fsdecode(path)) if path else _UNNAMED


def _search(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    kind = getattr(index, "metric_kind", None)
    dimensions = getattr(index, "ndim", None)
    return Call(
        "usearch",
        _index_name(index),
        top_k=int(argument(args, kwargs, 1, "count", 10)),
        dimensions=None if dimensions is None else int(dimensions),
        metric=None if kind is None else str(getattr(kind, "name", kind)).lower(),
        index_type="flat" if kwargs.get("exact") else "hnsw",
        size=len(index),
        batch_size=rows(argument(args, kwargs, 0, "vectors")),
    )


def _add(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    keys = argument(args, kwargs, 0, "keys")
    count = len(keys) if isinstance(keys, Sized) else rows(argument(args, kwargs, 1, "vectors"))
    return Call("usearch", _index_name(index), search=False, batch_size=count)


class UsearchInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures usearch indexes."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(_patch, "usearch.index")

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()


def _patch(module: Any) -> None:
    if _patches.on:
        _patches.measure(module.Index, "search", _search)
        _patches.measure(module.Index, "add", _add)

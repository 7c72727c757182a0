"""lancedb: vector searches where they run (`to_arrow`, `to_batches`), and writes of tables, sync and async.

The sync API runs the async one on a thread of its own with the caller's context: there is one span all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation.libraries.vector_calls import Call, VectorPatches, argument, dimensions, rows

_patches = VectorPatches()


def _name(table: Any) -> str:
    return str(getattr(table, "name", "") or "lancedb")


def _remote(table: Any) -> bool:
    return type(table).__name__.startswith("Remote")


def _sync_search(builder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    query = getattr(builder, "_query", None)
    table = getattr(builder, "_table", None)
    limit = getattr(builder, "_limit", None)
    return Call(
        "lancedb",
        _name(table),
        top_k=10 if limit is None else int(limit),
        dimensions=dimensions(query),
        metric=getattr(builder, "_distance_type", None) or "l2",
        filtered=getattr(builder, "_where", None) is not None,
        batch_size=rows(query),
        in_process=not _remote(table),
    )


def _async_search(query: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    if "Vector" not in type(query).__name__:
        return None  # a scan or a full-text search
    asked = query.to_query_object() if hasattr(query, "to_query_object") else None
    vector, limit = getattr(asked, "vector", None), getattr(asked, "limit", None)
    return Call(
        "lancedb",
        _name(getattr(query, "_table", None)),
        top_k=10 if limit is None else int(limit),
        dimensions=dimensions(vector),
        metric=str(getattr(asked, "distance_type", None) or "l2"),
        filtered=getattr(asked, "filter", None) is not None,
        batch_size=rows(vector),
    )


def _count(data: Any) -> int:
    return len(data) if isinstance(data, Sized) and not isinstance(data, (str, dict)) else 1


def _add(table: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    count = _count(argument(args, kwargs, 0, "data"))
    return Call("lancedb", _name(table), search=False, batch_size=count, in_process=not _remote(table))


def _merge(builder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    table = getattr(builder, "_table", None)
    count = _count(argument(args, kwargs, 0, "new_data"))
    return Call("lancedb", _name(table), search=False, batch_size=count, in_process=not _remote(table))


class LancedbInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures lancedb tables."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        for module in ("lancedb.query", "lancedb.table", "lancedb.merge"):
            register_post_import_hook(_patch, module)

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()


def _patch(module: Any) -> None:
    if not _patches.on:
        return
    for kind, methods, describe in (
        ("LanceVectorQueryBuilder", ("to_arrow", "to_batches"), _sync_search),
        ("AsyncQueryBase", ("to_arrow", "to_batches"), _async_search),
        ("LanceTable", ("add",), _add),
        ("AsyncTable", ("add",), _add),
        ("LanceMergeInsertBuilder", ("execute",), _merge),
    ):
        found = vars(module).get(kind)
        if isinstance(found, type) and found.__module__ == module.__name__:
            for method in methods:
                _patches.measure(found, method, describe)

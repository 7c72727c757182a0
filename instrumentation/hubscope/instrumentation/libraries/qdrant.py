"""qdrant-client: searches and upserts of the sync and the async client, local or remote; payloads are not read."""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation.libraries.vector_calls import Call, VectorPatches, argument, dimensions

_patches = VectorPatches()


def _in_process(client: Any) -> bool:
    return "Local" in type(getattr(client, "_client", None)).__name__


def _call(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any], **known: Any) -> Call:
    name = str(argument(args, kwargs, 0, "collection_name"))
    return Call("qdrant", name, in_process=_in_process(client), **known)


def _query_points(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return _call(
        client,
        args,
        kwargs,
        top_k=int(argument(args, kwargs, 6, "limit", 10)),
        dimensions=dimensions(argument(args, kwargs, 1, "query")),
        filtered=argument(args, kwargs, 4, "query_filter") is not None,
    )


def _search(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Before 1.16."""
    vector = argument(args, kwargs, 1, "query_vector")
    return _call(
        client,
        args,
        kwargs,
        top_k=int(argument(args, kwargs, 4, "limit", 10)),
        dimensions=dimensions(vector[1] if isinstance(vector, tuple) else vector),
        filtered=argument(args, kwargs, 2, "query_filter") is not None,
    )


def _query_batch(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    requests = argument(args, kwargs, 1, "requests", ())
    first = requests[0] if requests else None
    return _call(
        client,
        args,
        kwargs,
        top_k=int(getattr(first, "limit", None) or 10),
        dimensions=dimensions(getattr(first, "query", None)),
        filtered=any(getattr(request, "filter", None) is not None for request in requests),
        batch_size=len(requests),
    )


def _upsert(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    points = argument(args, kwargs, 1, "points")
    points = getattr(points, "ids", points)  # a Batch holds columns
    return _call(client, args, kwargs, search=False, batch_size=len(points) if isinstance(points, Sized) else 1)


_PATCHED = (
    ("query_points", _query_points),
    ("search", _search),
    ("query_batch_points", _query_batch),
    ("upsert", _upsert),
    ("upload_points", _upsert),
)


class QdrantInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures qdrant clients."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(_patch, "qdrant_client.qdrant_client")
        register_post_import_hook(_patch, "qdrant_client.async_qdrant_client")

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()


def _patch(module: Any) -> None:
    if not _patches.on:
        return
    for kind in (vars(module).get("QdrantClient"), vars(module).get("AsyncQdrantClient")):
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            for name, describe in _PATCHED:
                _patches.measure(kind, name, describe)

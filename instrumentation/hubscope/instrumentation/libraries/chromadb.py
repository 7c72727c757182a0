"""chromadb: `query`, `add`, `upsert` and `update` of collections, sync and async; documents and texts are not read."""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped there
from wrapt import register_post_import_hook

from hubscope.instrumentation.libraries.vector_calls import Call, VectorPatches, argument, dimensions, rows

_patches = VectorPatches()
_QUERY = (
    "query_embeddings", "query_texts", "query_images", "query_uris", "ids", "n_results", "where", "where_document"
)  # fmt: skip


def _in_process(collection: Any) -> bool:
    """Whether the store is in this process, and no server."""
    client = getattr(collection, "_client", None)
    server = getattr(client, "_server", client)
    return "FastAPI" not in type(server).__name__


def _metric(collection: Any) -> str | None:
    metadata = getattr(collection, "metadata", None) or {}
    said = metadata.get("hnsw:space")
    if said is None:
        configuration = getattr(getattr(collection, "_model", None), "configuration_json", None) or {}
        said = (configuration.get("hnsw") or configuration.get("spann") or {}).get("space")
    return str(said) if said else None


def _query(collection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    said = {**dict(zip(_QUERY, args, strict=False)), **kwargs}
    embeddings = said.get("query_embeddings")
    asked = embeddings if embeddings is not None else next((said[k] for k in _QUERY[1:4] if said.get(k)), None)
    batch = len(asked) if isinstance(asked, (list, tuple)) and embeddings is None else rows(asked)
    return Call(
        "chroma",
        str(collection.name),
        top_k=int(said.get("n_results", 10)),
        dimensions=dimensions(embeddings),
        metric=_metric(collection),
        index_type="hnsw",
        filtered=any(said.get(name) for name in ("ids", "where", "where_document")),
        batch_size=batch,
        in_process=_in_process(collection),
    )


def _write(collection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    ids = argument(args, kwargs, 0, "ids")
    count = len(ids) if isinstance(ids, Sized) and not isinstance(ids, str) else 1
    return Call("chroma", str(collection.name), search=False, batch_size=count, in_process=_in_process(collection))


class ChromadbInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # no type information
    """Measures chromadb collections."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        _patches.on = True
        register_post_import_hook(_patch, "chromadb.api.models.Collection")
        register_post_import_hook(_patch, "chromadb.api.models.AsyncCollection")

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.take_out()


def _patch(module: Any) -> None:
    if not _patches.on:
        return
    for kind in (vars(module).get("Collection"), vars(module).get("AsyncCollection")):
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            _patches.measure(kind, "query", _query)
            for name in ("add", "upsert", "update"):
                _patches.measure(kind, name, _write)

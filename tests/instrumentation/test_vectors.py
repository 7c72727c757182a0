"""Vector libraries, the real ones. Those that are not installed are skipped; tests/suites/versions.py installs each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import context

from hubscope import instrumentation as hub
from hubscope.instrumentation.libraries.chromadb import ChromadbInstrumentor
from hubscope.instrumentation.libraries.faiss import FaissInstrumentor
from hubscope.instrumentation.libraries.hnswlib import HnswlibInstrumentor
from hubscope.instrumentation.libraries.lancedb import LancedbInstrumentor
from hubscope.instrumentation.libraries.qdrant import QdrantInstrumentor

INSTRUMENTORS = (
    ChromadbInstrumentor,
    FaissInstrumentor,
    HnswlibInstrumentor,
    LancedbInstrumentor,
    QdrantInstrumentor,
)


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """Every vector library measured for one test."""
    for instrumentor in INSTRUMENTORS:
        instrumentor().instrument()
    yield
    for instrumentor in INSTRUMENTORS:
        instrumentor().uninstrument()


def _vectors(count: int, dimensions: int = 8) -> Any:
    return np.random.default_rng(1).random((count, dimensions), dtype=np.float32)


def _facts(span: Any) -> dict[str, Any]:
    """What a span says of the vectors, by the last part of each name."""
    return {name.rpartition(".")[2]: value for name, value in span.attributes.items() if name.startswith("hub.vector.")}


def test_hnswlib(measured, recorded):
    """A graph and a flat index: k, dimensions, metric, size, a filter, and how many vectors."""
    hnswlib = pytest.importorskip("hnswlib")
    graph = hnswlib.Index(space="cosine", dim=8)
    graph.init_index(max_elements=100)
    graph.add_items(_vectors(20), np.arange(20))
    labels, _ = graph.knn_query(_vectors(3), k=4, filter=lambda n: n != 7)
    assert labels.shape == (3, 4)
    assert recorded.one("upsert hnswlib").attributes["db.operation.batch.size"] == 20
    span = recorded.one("search hnswlib")
    assert _facts(span) == {
        "top_k": 4, "dimensions": 8, "metric": "cosine", "index_type": "hnsw", "size": 20, "filtered": True
    }  # fmt: skip
    assert span.attributes["db.operation.batch.size"] == 3
    flat = hnswlib.BFIndex(space="l2", dim=8)
    flat.init_index(max_elements=100)
    flat.add_items(_vectors(20), np.arange(20))
    flat.knn_query(_vectors(1)[0], k=2)
    assert recorded.spans[-1].attributes["hub.vector.index_type"] == "flat"


def test_faiss_every_class(measured, recorded):
    """Each index class is measured though each defines its own `search`, and is told by its kind."""
    faiss = pytest.importorskip("faiss")
    xb = _vectors(400)
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatL2(8), 8, 4)
    ivf.train(xb)
    indexes = {
        "flat": faiss.IndexFlatIP(8),
        "hnsw": faiss.IndexHNSWFlat(8, 8),
        "ivf": ivf,
        "lsh": faiss.IndexLSH(8, 16),
    }
    for kind, index in indexes.items():
        index.add(xb)
        distances, _ = index.search(xb[:2], 5)
        assert distances.shape == (2, 5)
        span = recorded.spans[-1]
        facts = _facts(span)
        assert (facts["index_type"], facts["size"], facts["top_k"], facts["dimensions"]) == (kind, 400, 5, 8)
        assert span.attributes["db.system.name"] == "faiss"
    assert recorded.spans[1].attributes["hub.vector.metric"] == "ip"
    named = faiss.IndexIDMap(faiss.IndexFlatL2(8))
    named.add_with_ids(xb, np.arange(400))
    named.search(xb[:1], k=5, params=faiss.SearchParameters(sel=faiss.IDSelectorRange(0, 100)))
    assert _facts(recorded.spans[-1])["filtered"] is True
    binary = faiss.IndexBinaryFlat(64)
    binary.add(np.zeros((3, 8), dtype=np.uint8))
    binary.search(np.zeros((1, 8), dtype=np.uint8), 1)
    assert (_facts(recorded.spans[-1])["metric"], _facts(recorded.spans[-1])["dimensions"]) == ("hamming", 64)


def test_faiss_a_failed_search_is_told(measured, recorded):
    """A search with vectors of another length raises as without measuring, and its span has failed."""
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(8)
    index.add(_vectors(4))
    with pytest.raises(AssertionError):
        index.search(_vectors(1, 9), 2)
    assert recorded.one("search faiss").attributes["error.type"] == "AssertionError"


def test_chromadb(measured, recorded, tmp_path: Path):
    """A local store: searches and writes by collection; no document, text or metadata is in what is sent."""
    chromadb = pytest.importorskip("chromadb")
    settings = chromadb.Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(path=str(tmp_path), settings=settings)
    collection = client.create_collection("memories", metadata={"hnsw:space": "cosine"}, embedding_function=None)
    ids = [f"id-secret-{n}" for n in range(5)]
    documents = ["document secret"] * 5
    metadatas = [{"kind": "metadata secret"}] * 5
    collection.add(ids=ids, embeddings=_vectors(5).tolist(), documents=documents, metadatas=metadatas)
    found = collection.query(
        query_embeddings=_vectors(2).tolist(), n_results=3, where={"kind": "metadata secret"},
        where_document={"$contains": "document"},
    )  # fmt: skip
    assert len(found["ids"][0]) == 3
    assert recorded.one("upsert memories").attributes["db.operation.batch.size"] == 5
    span = recorded.one("search memories")
    facts = _facts(span)
    assert (facts["top_k"], facts["dimensions"], facts["metric"], facts["filtered"]) == (3, 8, "cosine", True)
    assert span.attributes["db.operation.batch.size"] == 2
    assert span.kind.name == "INTERNAL"
    assert not any("secret" in s.to_json() for s in recorded.spans)


def test_lancedb(measured, recorded, tmp_path: Path):
    """A local table: one span a search though the sync API runs the async one; scans and full text are none."""
    lancedb = pytest.importorskip("lancedb")
    db = lancedb.connect(str(tmp_path))
    rows = [{"vector": vector.tolist(), "text": "document secret", "n": n} for n, vector in enumerate(_vectors(20))]
    table = db.create_table("memories", data=rows)
    table.add(rows[:3])
    found = table.search(_vectors(1)[0]).where("n < 10").limit(4).to_list()
    assert len(found) == 4
    table.search(_vectors(1)[0].tolist()).metric("cosine").to_arrow()
    table.to_arrow()
    table.search().limit(2).to_list()
    assert recorded.one("upsert memories").attributes["db.operation.batch.size"] == 3
    first, second = [span for span in recorded.spans if span.name == "search memories"]
    facts = _facts(first)
    assert (facts["top_k"], facts["dimensions"], facts["metric"], facts["filtered"]) == (4, 8, "l2", True)
    assert (_facts(second)["metric"], _facts(second)["filtered"]) == ("cosine", False)
    assert first.kind.name == "INTERNAL"
    assert not any("secret" in span.to_json() for span in recorded.spans)


def test_lancedb_async(measured, recorded, tmp_path: Path):
    """The async API: one span a search, a child of what is current where it is awaited."""
    lancedb = pytest.importorskip("lancedb")

    async def search() -> int:
        db = await lancedb.connect_async(str(tmp_path))
        table = await db.create_table("memories", data=[{"vector": v.tolist()} for v in _vectors(20)])
        await table.add([{"vector": v.tolist()} for v in _vectors(2)])
        with hub.task("ask"):
            found = await table.query().nearest_to(_vectors(1)[0].tolist()).limit(3).to_list()
        return len(found)

    assert asyncio.run(search()) == 3
    [span] = [span for span in recorded.spans if span.name.startswith("search ")]
    assert span.parent.span_id == recorded.one("task ask").context.span_id
    assert (_facts(span)["top_k"], _facts(span)["dimensions"]) == (3, 8)


def _points(models: Any) -> list[Any]:
    return [models.PointStruct(id=n, vector=v.tolist(), payload={"text": "secret"}) for n, v in enumerate(_vectors(9))]


def test_qdrant(measured, recorded):
    """The local client: searches, batches and upserts by collection; no payload is in what is sent."""
    qdrant_client = pytest.importorskip("qdrant_client")
    models = qdrant_client.models
    client = qdrant_client.QdrantClient(":memory:")
    vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
    client.create_collection("memories", vectors_config=vectors)
    client.upsert("memories", points=_points(models))
    only = models.Filter(must=[models.FieldCondition(key="text", match=models.MatchValue(value="secret"))])
    found = client.query_points("memories", query=_vectors(1)[0].tolist(), query_filter=only, limit=4)
    assert len(found.points) == 4
    request = models.QueryRequest(query=_vectors(1)[0].tolist(), limit=2)
    client.query_batch_points("memories", requests=[request, request])
    assert recorded.one("upsert memories").attributes["db.operation.batch.size"] == 9
    first, second = [span for span in recorded.spans if span.name == "search memories"]
    assert (_facts(first)["top_k"], _facts(first)["dimensions"], _facts(first)["filtered"]) == (4, 8, True)
    assert (second.attributes["db.operation.batch.size"], _facts(second)["top_k"]) == (2, 2)
    assert first.kind.name == "INTERNAL"
    assert not any("secret" in span.to_json() for span in recorded.spans)


def test_qdrant_async(measured, recorded):
    """The async client makes the same spans."""
    qdrant_client = pytest.importorskip("qdrant_client")
    models = qdrant_client.models

    async def search() -> None:
        client = qdrant_client.AsyncQdrantClient(":memory:")
        vectors = models.VectorParams(size=8, distance=models.Distance.COSINE)
        await client.create_collection("memories", vectors_config=vectors)
        await client.upsert("memories", points=_points(models))
        await client.query_points("memories", query=_vectors(1)[0].tolist(), limit=4)

    asyncio.run(search())
    assert [span.name for span in recorded.spans] == ["upsert memories", "search memories"]


@pytest.mark.parametrize(
    ("library", "kinds", "instrumentor"),
    [
        ("hnswlib", ("Index", "BFIndex"), HnswlibInstrumentor),
        ("faiss", ("IndexFlatL2", "IndexIVFFlat", "IndexBinaryFlat"), FaissInstrumentor),
        ("qdrant_client", ("QdrantClient", "AsyncQdrantClient"), QdrantInstrumentor),
    ],
)
def test_uninstrumenting_gives_the_methods_back(recorded, library, kinds, instrumentor):
    """Afterwards each class has its own methods again."""
    module = pytest.importorskip(library)
    before = [dict(vars(getattr(module, kind))) for kind in kinds]
    instrumentor().instrument()
    assert [dict(vars(getattr(module, kind))) for kind in kinds] != before
    instrumentor().uninstrument()
    assert [dict(vars(getattr(module, kind))) for kind in kinds] == before


def test_suppressed_and_nested_calls_make_no_span(measured, recorded):
    """Under suppression there is no span; inside a block by hand that one is completed."""
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(8)
    token = context.attach(context.set_value("suppress_instrumentation", True))
    index.add(_vectors(4))
    context.detach(token)
    with hub.vector_search("memories", top_k=99):
        index.search(_vectors(1), 2)
    facts = _facts(recorded.one("search memories"))
    assert [span.name for span in recorded.spans] == ["search memories"]
    assert (facts["top_k"], facts["size"], facts["index_type"]) == (99, 4, "flat")

"""usearch, the real library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hubscope import instrumentation as hub
from hubscope.instrumentation.libraries.usearch import UsearchInstrumentor


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """usearch measured for one test."""
    UsearchInstrumentor().instrument()
    yield
    UsearchInstrumentor().uninstrument()


def _index():
    from usearch.index import Index

    return Index(ndim=8, metric="cos")


def test_searches_and_writes(measured, recorded):
    """A search tells k, dimensions, metric, kind and size of the index; a write how many vectors."""
    index = _index()
    index.add(np.arange(20), np.random.default_rng(1).random((20, 8), dtype=np.float32))
    matches = index.search(np.ones(8, dtype=np.float32), 3)
    index.search(np.ones(8, dtype=np.float32), 3, exact=True)
    assert len(matches) == 3
    assert recorded.one("upsert usearch").attributes["db.operation.batch.size"] == 20
    first, second = [span.attributes for span in recorded.spans if span.name == "search usearch"]
    assert first["hub.vector.top_k"] == 3
    assert first["hub.vector.dimensions"] == 8
    assert first["hub.vector.metric"] == "cosine"
    assert first["hub.vector.size"] == 20
    assert (first["hub.vector.index_type"], second["hub.vector.index_type"]) == ("hnsw", "flat")
    assert first["db.system.name"] == "usearch"


def test_a_search_for_several_vectors_says_how_many(measured, recorded):
    """A call is told apart by the number of vectors it searches for; one is not said, as OpenTelemetry has it."""
    index = _index()
    index.add(np.arange(20), np.random.default_rng(1).random((20, 8), dtype=np.float32))
    for shape in ((8,), (1, 8), (12, 8)):
        index.search(np.ones(shape, dtype=np.float32), 3)
    with hub.vector_search("memories"):
        index.search(np.ones((5, 8), dtype=np.float32), 3)
    searched = [span.attributes.get("db.operation.batch.size") for span in recorded.spans if span.name[:7] == "search "]
    assert searched == [None, None, 12, 5]


def test_a_block_by_hand_is_completed_not_doubled(measured, recorded):
    """Inside `hub.vector_search` the library makes no second span: it fills in what was not said."""
    index = _index()
    with hub.vector_upsert("memories"):
        index.add(1, np.ones(8, dtype=np.float32))
    with hub.vector_search("memories", top_k=99):
        index.search(np.ones(8, dtype=np.float32), 3)
    assert [span.name for span in recorded.spans] == ["upsert memories", "search memories"]
    attributes = recorded.one("search memories").attributes
    assert attributes["hub.vector.top_k"] == 99
    assert attributes["hub.vector.size"] == 1


def test_uninstrumenting_gives_the_methods_back(recorded):
    """Afterwards the class has its own methods again."""
    from usearch.index import Index

    before = (Index.search, Index.add)
    UsearchInstrumentor().instrument()
    assert Index.search is not before[0]
    UsearchInstrumentor().uninstrument()
    assert (Index.search, Index.add) == before

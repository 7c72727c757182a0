"""duckdb, the real library."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from hubscope.instrumentation.libraries.duckdb import DuckdbInstrumentor


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """duckdb measured for one test."""
    DuckdbInstrumentor().instrument()
    yield
    DuckdbInstrumentor().uninstrument()


def test_statements_of_a_connection(measured, recorded):
    """execute and executemany make one span each, with the text but no values; what is fetched is as before."""
    con = duckdb.connect()
    con.execute("create table memories (id integer, text varchar)")
    con.executemany("insert into memories values (?, ?)", [[n, f"secret {n}"] for n in range(5)])
    found = con.execute("select text from memories where id > ? and text <> 'secret'", [1]).fetchall()
    assert len(found) == 3
    assert con.cursor().execute("select count(*) from memories").fetchone() == (5,)
    names = [span.name for span in recorded.spans]
    assert names == ["CREATE memories", "INSERT memories", "SELECT memories", "SELECT memories"]
    span = recorded.spans[2]
    assert span.attributes["db.system.name"] == "duckdb"
    assert span.attributes["db.query.text"] == "SELECT text FROM memories WHERE id > ? AND text <> ?"
    assert recorded.one("INSERT memories").attributes["db.operation.batch.size"] == 5
    assert sum(p.count for p in recorded.metrics()["db.client.operation.duration"]) == 4


def test_a_relation_is_measured_where_it_runs(measured, recorded):
    """`sql` alone runs nothing; a fetch of what was made of it is one query, with its rows."""
    con = duckdb.connect()
    relation = con.sql("select range as n from range(20)").filter("n > 9")
    assert recorded.spans == []
    assert len(relation.fetchall()) == 10
    [span] = recorded.spans
    assert span.attributes["db.response.returned_rows"] == 10
    assert span.attributes["db.operation.name"] == "SELECT"
    assert duckdb.execute("select 42").fetchone() == (42,)
    assert len(recorded.spans) == 2


def test_an_error_is_told_without_its_text(measured, recorded):
    """A failed statement raises as before; its span has the class."""
    with pytest.raises(duckdb.CatalogException):
        duckdb.connect().execute("select * from secret_table")
    assert recorded.spans[0].attributes["error.type"].endswith("CatalogException")
    assert recorded.spans[0].events == ()


def test_uninstrumenting_gives_the_methods_back(recorded):
    """Afterwards the classes and the module have their own functions."""
    owners = (duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation, duckdb)
    before = [dict(vars(owner)) for owner in owners]
    DuckdbInstrumentor().instrument()
    assert [dict(vars(owner)) for owner in owners] != before
    DuckdbInstrumentor().uninstrument()
    assert [dict(vars(owner)) for owner in owners] == before

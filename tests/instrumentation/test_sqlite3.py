"""The sqlite3 instrumentation on real connections."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubscope import instrumentation as hub
from hubscope.instrumentation.libraries.sqlite3 import Sqlite3Instrumentor


@pytest.fixture
def measured(recorded) -> Iterator[None]:
    """sqlite3 measured for one test."""
    Sqlite3Instrumentor().instrument()
    yield
    Sqlite3Instrumentor().uninstrument()


def _filled(path: str = ":memory:") -> sqlite3.Connection:
    con = sqlite3.connect(path)
    con.execute("create table memories (id integer primary key, text text)")
    con.executemany("insert into memories (text) values (?)", [(f"secret {i}",) for i in range(10)])
    con.commit()
    return con


def test_every_way_to_run_a_statement_is_measured(measured, recorded):
    """Connection and cursor, execute, executemany and executescript each make one span of their own shape."""
    con = _filled()
    con.executescript("create index by_text on memories (text); analyze;")
    cursor = con.cursor()
    cursor.execute("delete from memories where id = 3")
    names = [span.name for span in recorded.spans]
    assert names == ["CREATE memories", "INSERT memories", "COMMIT", "CREATE", "DELETE memories"]
    assert recorded.one("INSERT memories").attributes["db.operation.batch.size"] == 10


@pytest.mark.parametrize(
    ("fetch", "rows"),
    [
        (lambda c: c.fetchall(), 9),
        (lambda c: list(c), 9),
        (lambda c: [c.fetchone() for _ in range(10)], 9),
        (lambda c: c.fetchmany(100), 9),
        (lambda c: (c.fetchmany(4), c.close()), 4),
        (lambda c: next(c), 1),
    ],
)
def test_rows_are_counted_however_they_are_fetched(measured, recorded, fetch, rows):
    """The span is sent when the rows are exhausted or the cursor is let go, with the rows that were fetched."""
    con = _filled()
    cursor = con.execute("select * from memories where id > ?", (1,))
    fetch(cursor)
    del cursor
    span = recorded.one("SELECT memories")
    assert span.attributes["db.response.returned_rows"] == rows
    assert span.attributes["db.query.text"] == "SELECT * FROM memories WHERE id > ?"
    points = recorded.metrics()["db.client.response.returned_rows"]
    assert sum(point.sum for point in points) == rows


def test_the_duration_is_that_of_the_database_alone(measured, recorded, monkeypatch):
    """What the application does between two fetches is not in the span, the fetches are."""
    from hubscope.instrumentation.libraries import sqlite3 as module

    clock = iter(range(0, 10_000_000_000, 1_000_000))  # 1 ms a reading
    con = _filled()
    monkeypatch.setattr(module, "perf_counter_ns", lambda: next(clock))
    cursor = con.execute("select * from memories where id < 3")
    cursor.fetchone()
    [next(clock) for _ in range(500)]  # the application takes half a second
    cursor.fetchall()
    span = recorded.one("SELECT memories")
    assert span.end_time - span.start_time == 3_000_000  # execute and two fetches


def test_connections_stay_what_c_code_expects(measured, recorded, tmp_path: Path):
    """backup, Cursor(con), row factories, isinstance and a transaction block work as without us."""
    con = _filled(str(tmp_path / "hub.db"))
    assert isinstance(con, sqlite3.Connection)
    copy = sqlite3.connect(":memory:")
    con.backup(copy)
    assert copy.execute("select count(*) from memories").fetchone() == (10,)
    assert sqlite3.Cursor(con).execute("select 1").fetchone() == (1,)
    con.row_factory = sqlite3.Row
    assert con.execute("select text from memories where id = 1").fetchone()["text"] == "secret 0"
    with pytest.raises(ZeroDivisionError):
        _delete_and_fail(con)
    assert con.execute("select count(*) from memories").fetchone()[0] == 10
    assert "ROLLBACK" in {span.name for span in recorded.spans}
    assert recorded.one("DELETE memories").attributes["db.namespace"] == "hub.db"


def _delete_and_fail(con: sqlite3.Connection) -> None:
    with con:
        con.execute("delete from memories")
        raise ZeroDivisionError


def test_classes_of_the_application_are_kept_and_measured(measured, recorded):
    """A factory class, given by name or by position, stays the class of what is made, and is measured."""

    class Own(sqlite3.Connection):
        def shout(self) -> str:
            return "own"

    class OwnCursor(sqlite3.Cursor):
        pass

    by_name = sqlite3.connect(":memory:", factory=Own)
    by_position = sqlite3.connect(":memory:", 5.0, 0, None, True, Own)
    assert by_name.shout() == by_position.shout() == "own"
    assert isinstance(by_name.cursor(OwnCursor), OwnCursor)
    by_name.cursor(OwnCursor).execute("select 1").fetchall()
    by_position.execute("select 2").fetchall()
    assert [span.name for span in recorded.spans] == ["SELECT", "SELECT"]


def test_what_the_application_overrides_still_runs(measured, recorded):
    """Overridden methods of the application's own classes come first, and are measured underneath."""
    calls: list[str] = []

    class Own(sqlite3.Connection):
        def execute(self, *args):
            calls.append("execute")
            return super().execute(*args)

        def cursor(self, *args):
            calls.append("cursor")
            return super().cursor(OwnCursor)

    class OwnCursor(sqlite3.Cursor):
        def fetchall(self):
            calls.append("fetchall")
            return super().fetchall()

    con = sqlite3.connect(":memory:", factory=Own)
    con.execute("select 1").fetchall()
    con.cursor().execute("select 2").fetchall()
    assert calls == ["execute", "cursor", "fetchall"]
    assert [span.attributes["db.response.returned_rows"] for span in recorded.spans] == [1, 1]


def test_an_error_is_told_without_its_text(measured, recorded):
    """A failed statement has the error's class and SQLite's code, and raises as before; no data is recorded."""
    con = _filled()
    with pytest.raises(sqlite3.IntegrityError):
        con.execute("insert into memories (id, text) values (1, 'top secret')")
    span = next(s for s in recorded.spans if not s.status.is_ok and s.name == "INSERT memories")
    assert span.attributes["error.type"] == "sqlite3.IntegrityError"
    assert span.attributes["db.response.status_code"] == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert "secret" not in span.to_json()


def test_uninstrumenting_leaves_nothing(recorded):
    """Afterwards connect is the original and an open connection runs unmeasured."""
    original = sqlite3.connect
    Sqlite3Instrumentor().instrument()
    con = _filled()
    Sqlite3Instrumentor().uninstrument()
    before = len(recorded.spans)
    assert con.execute("select 1").fetchall() == [(1,)]
    assert sqlite3.connect is original
    assert sqlite3.dbapi2.connect is original
    assert len(recorded.spans) == before


class _Renamed(sqlite3.Connection):
    def __init__(self, path, wait_s, **kwargs):
        super().__init__(path, timeout=wait_s, **kwargs)


@pytest.mark.parametrize("factory", [None, sqlite3.Connection, _Renamed])
def test_arguments_by_position_arrive(measured, factory):
    """What the application gives by position reaches the connection, also one with a signature of its own."""
    more = {} if factory is None else {"factory": factory}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        con = sqlite3.connect(":memory:", 3.5, **more)
    assert con.execute("pragma busy_timeout").fetchone() == (3500,)
    con.close()


def test_wrong_arguments_are_refused_as_before(measured):
    """Twice given, or too many: the interpreter's own TypeError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(TypeError, match="timeout"):
            sqlite3.connect(":memory:", 5.0, timeout=3)
        with pytest.raises(TypeError):
            sqlite3.connect(":memory:", 5.0, 0, None, True, sqlite3.Connection, 100, False, "too many")


early_connect = sqlite3.connect  # as `from sqlite3 import connect` before measuring begins


def test_a_connect_imported_before_is_measured_too(measured, recorded):
    """A module that took the function by name gets ours, and its own back afterwards."""
    early_connect(":memory:").execute("select 1").fetchall()
    assert [span.name for span in recorded.spans] == ["SELECT"]
    assert early_connect is sqlite3.connect
    Sqlite3Instrumentor().uninstrument()
    assert early_connect is sqlite3.connect
    assert type(early_connect).__name__ == "builtin_function_or_method"
    Sqlite3Instrumentor().instrument()


def test_types_say_what_they_said(measured):
    """Names and reprs are sqlite3's, `type(con)` makes a connection, and a prepared statement can be made."""
    con = sqlite3.connect(":memory:")
    assert repr(con).startswith("<sqlite3.Connection object at ")
    assert repr(con.cursor()).startswith("<sqlite3.Cursor object at ")
    assert type(con) == sqlite3.Connection  # noqa: E721 - what CPython's own tests compare
    assert type(con.cursor()) == sqlite3.Cursor  # noqa: E721
    assert len({type(con), sqlite3.Connection}) == 1
    with pytest.raises(TypeError):
        con.cursor(None)
    assert type(con)(":memory:").execute("select 1").fetchone() == (1,)
    assert type(con("select 1")).__name__ == "Statement"
    con.close()


def test_aiosqlite_and_sqlalchemy_make_one_span_a_statement(measured, recorded, tmp_path: Path):
    """Libraries above sqlite3 are seen through it, once."""
    aiosqlite, sqlalchemy = pytest.importorskip("aiosqlite"), pytest.importorskip("sqlalchemy")

    async def ask() -> list[Any]:
        async with aiosqlite.connect(tmp_path / "hub.db") as con:
            await con.execute("create table memories (text text)")
            await con.execute("insert into memories values ('secret')")
            await con.commit()
            return [row async for row in await con.execute("select * from memories")]

    assert asyncio.run(ask()) == [("secret",)]
    assert [s.name for s in recorded.spans] == ["CREATE memories", "INSERT memories", "COMMIT", "SELECT memories"]
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'hub.db'}")
    with engine.connect() as con:
        assert con.execute(sqlalchemy.text("select text from memories where rowid = :n"), {"n": 1}).all() == [
            ("secret",)
        ]
    engine.dispose()
    made = [span.name for span in recorded.spans[4:] if not span.name.startswith("PRAGMA")]  # its own at connecting
    assert made == ["SELECT memories"]


def test_a_search_by_sqlite_vec_is_a_vector_search(measured, recorded):
    """KNN by MATCH and by distance functions; a full-text search stays a query; a block by hand is completed."""
    sqlite_vec = pytest.importorskip("sqlite_vec")
    con = sqlite3.connect(":memory:")
    if not hasattr(con, "enable_load_extension"):
        pytest.skip("this interpreter's sqlite3 loads no extensions")
    con.enable_load_extension(True)
    sqlite_vec.load(con)
    con.execute("create virtual table vectors using vec0(embedding float[4])")
    blob = sqlite_vec.serialize_float32([0.1] * 4)
    con.executemany("insert into vectors (rowid, embedding) values (?, ?)", [(n, blob) for n in range(9)])
    found = con.execute("select rowid from vectors where embedding match ? and k = 3", (blob,)).fetchall()
    assert len(found) == 3
    con.execute("select vec_distance_cosine(embedding, ?) as d from vectors order by d limit 2", (blob,)).fetchall()
    first, second = [span for span in recorded.spans if span.name == "search vectors"]
    assert (first.attributes["hub.vector.top_k"], second.attributes["hub.vector.top_k"]) == (3, 2)
    assert first.attributes["db.operation.name"] == "search"
    assert sum(p.count for p in recorded.metrics()["hub.vector.search.duration"]) == 2
    con.execute("create virtual table notes using fts5(text)")
    con.execute("select * from notes where notes match 'word' order by rank").fetchall()
    assert recorded.spans[-1].name == "SELECT notes"
    before = len(recorded.spans)
    with hub.vector_search("memories"):
        con.execute("select rowid from vectors where embedding match ? and k = 3", (blob,)).fetchall()
    assert [span.name for span in recorded.spans[before:]] == ["search memories"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="earlier interpreters do not warn")
def test_the_warning_of_positional_arguments_is_the_application_s(measured):
    """It comes once, for the line that gave them, and never where the application gave none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        sqlite3.connect(":memory:", timeout=5.0).close()
        assert caught == []
        sqlite3.connect(":memory:", 5.0).close()
    assert [(w.category, w.filename) for w in caught] == [(DeprecationWarning, __file__)]

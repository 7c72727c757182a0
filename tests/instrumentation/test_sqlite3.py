"""The sqlite3 instrumentation on real connections."""

from __future__ import annotations

import sqlite3
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.skipif(sys.version_info < (3, 13), reason="earlier interpreters do not warn")
def test_the_warning_of_positional_arguments_is_the_application_s(measured):
    """It comes once, for the line that gave them, and never where the application gave none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        sqlite3.connect(":memory:", timeout=5.0).close()
        assert caught == []
        sqlite3.connect(":memory:", 5.0).close()
    assert [(w.category, w.filename) for w in caught] == [(DeprecationWarning, __file__)]

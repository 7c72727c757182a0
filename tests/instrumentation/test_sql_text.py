"""Shapes of statements."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.instrumentation.libraries.sql_text import shape_of


@pytest.mark.parametrize(
    ("sql", "text", "summary"),
    [
        ("select * from memories where id = 5", "SELECT * FROM memories WHERE id = ?", "SELECT memories"),
        ("SELECT a FROM b WHERE n IN (1,2,3)", "SELECT a FROM b WHERE n IN (?)", "SELECT b"),
        ("insert into t(a,b) values (?,?),(?,?)", "INSERT INTO t(a, b) VALUES (?)", "INSERT t"),
        ("SELECT 1 FROM a, [b c] x JOIN d", "SELECT ? FROM a, [b c] x JOIN d", "SELECT a b c d"),
        ("with r as (select 1 from q) select * from r", "WITH r AS (SELECT ? FROM q) SELECT * FROM r", "SELECT q"),
        ('select * from t where name = "ada"', "SELECT * FROM t WHERE name = ?", "SELECT t"),
        ("PRAGMA table_info([foo])", "PRAGMA table_info([foo])", "PRAGMA table_info"),
        ("-- note\nselect x /* y */ from t", "SELECT x FROM t", "SELECT t"),
        ("select -1, 'unterminated", "SELECT ?, ?", "SELECT"),
        ("", "", "UNKNOWN"),
    ],
)
def test_shapes(sql, text, summary):
    """Literals, comments and list lengths are out; operation and tables are in the name."""
    shape = shape_of(sql)
    assert shape.text == text
    assert shape.summary.rpartition(" #")[0] == summary


def test_summaries_tell_shapes_apart_and_are_stable():
    """The same shape has one name whatever its values; another shape over the same table has another."""
    one, same, other = (
        shape_of("select text from memories where id = 1"),
        shape_of("SELECT text  FROM memories WHERE id = 22"),
        shape_of("select text from memories where persona = 'x'"),
    )
    assert one.summary == same.summary
    assert one.summary != other.summary


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_a_literal_never_gets_through(secret):
    """Whatever a quoted string holds, the shape is that of any other string."""
    quoted = "'" + secret.replace("'", "''") + "'"
    assert shape_of(f"select a from t where b = {quoted}").text == "SELECT a FROM t WHERE b = ?"


@given(st.text(max_size=200))
def test_any_text_has_a_shape(text):
    """Text that is no SQL neither fails nor takes long, and its shape is its own shape's shape."""
    shape = shape_of(text)
    assert shape.operation
    assert len(shape.summary) <= 255


@given(st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.binary(max_size=8))
def test_values_as_sqlite_prints_them(integer, real, blob):
    """Statements with values written by SQLite's own quote() all have one shape."""
    with closing(sqlite3.connect(":memory:")) as con:
        values = con.execute("select quote(?), quote(?), quote(?)", (integer, real, blob)).fetchone()
    assert shape_of("insert into t values (" + ", ".join(values) + ")").text == "INSERT INTO t VALUES (?)"

"""`hubscope sql`: shipped queries, own queries, and nothing that changes anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Hubscope = Callable[..., Result]


def test_the_list_has_every_shipped_query(hubscope: Hubscope) -> None:
    """--list prints each shipped query with what it answers; as JSON too."""
    from hubscope.analytics import engine

    lines = hubscope("sql", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(engine.names())
    assert all(len(line.split()) > 3 for line in lines)
    assert [q["name"] for q in json.loads(hubscope("sql", "--list", "--format", "json").stdout)] == list(engine.names())


def test_a_shipped_query_runs_by_its_name(hubscope: Hubscope, lake: Path) -> None:
    """A name runs the shipped file; the lake's only service is the value of $service."""
    rows = json.loads(hubscope("sql", "startup_phases", "--lake", lake, "--format", "json").stdout)
    assert {row["phase"] for row in rows} == {"load"}
    assert len(rows) == 6


def test_values_come_from_options(hubscope: Hubscope, lake: Path) -> None:
    """--param binds a value, --since bounds the time, and a value that is missing is named."""
    missing = hubscope("sql", "n_plus_one", "--lake", lake)
    assert missing.exit_code == 2
    assert "--param min_count=…" in missing.stderr
    given = ("--param", "min_count=5", "--param", "min_ns=1")
    rows = json.loads(hubscope("sql", "n_plus_one", "--lake", lake, "--format", "json", *given).stdout)
    assert {row["queries_each"] for row in rows} == {8.0}
    later = hubscope("sql", "n_plus_one", "--lake", lake, "--format", "json", "--since", "2026-04-01", *given)
    assert json.loads(later.stdout) == []


def test_formats_hold_the_same_rows(hubscope: Hubscope, lake: Path) -> None:
    """Table, JSON and CSV say the same; the count of rows goes to stderr."""
    query = "SELECT SpanName AS name, count(*) AS n FROM otel_traces GROUP BY 1 ORDER BY 1"
    as_json = json.loads(hubscope("sql", query, "--lake", lake, "--format", "json").stdout)
    as_csv = list(csv.DictReader(io.StringIO(hubscope("sql", query, "--lake", lake, "--format", "csv").stdout)))
    assert [{"name": r["name"], "n": str(r["n"])} for r in as_json] == as_csv
    table = hubscope("sql", query, "--lake", lake)
    assert len(table.stdout.splitlines()) == len(as_csv) + 2
    assert table.stderr.strip() == f"{len(as_csv)} rows"


def test_a_file_and_its_parameters(hubscope: Hubscope, lake: Path, tmp_path: Path) -> None:
    """-f runs a file; shims and $names work in it as in the shipped ones."""
    file = tmp_path / "mine.sql"
    file.write_text("SELECT attr(SpanAttributes, 'hub.plugin.id') AS p FROM otel_traces WHERE SpanName = $name LIMIT 1")
    result = hubscope("sql", "-f", file, "--lake", lake, "--param", "name=plugin summarizer on_open", "--format", "csv")
    assert result.stdout == "p\nsummarizer\n"


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{lake}/stolen.csv'",
        "COPY (SELECT 1) TO '/tmp/stolen.csv'",
        "ATTACH '{lake}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "CREATE TABLE t (a INTEGER)",
        "CREATE OR REPLACE TEMP VIEW otel_traces AS SELECT 1",
        "DROP VIEW otel_traces",
        "DELETE FROM otel_traces",
        "EXPORT DATABASE '{lake}/out'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/stolen.csv'",
        "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{lake}/stolen.csv'",
        "/* hello */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/stolen.csv'",
        "PRAGMA memory_limit = '1GB'",
        "CALL force_checkpoint()",
        "SELECT 1; DROP VIEW otel_traces",
        "PIVOT otel_traces ON SpanName",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "",
        "SELEC 1",
        "SELECT nothing FROM otel_traces",
    ],
)
def test_only_reading_is_allowed(statement: str, hubscope: Hubscope, lake: Path) -> None:
    """Whatever writes, loads, attaches, configures or reads outside the lake is refused with 2, and leaves no file."""
    before = sorted(lake.rglob("*"))
    result = hubscope("sql", statement.format(lake=lake), "--lake", lake)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert sorted(lake.rglob("*")) == before


@pytest.mark.parametrize(
    "statement",
    [
        "FROM otel_traces LIMIT 1",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
        "EXPLAIN SELECT * FROM otel_traces",
        "EXPLAIN ANALYZE SELECT count(*) FROM otel_traces",
        "DESCRIBE otel_traces",
        "SHOW TABLES",
        "SUMMARIZE SELECT Duration FROM otel_traces",
        "PIVOT (SELECT SpanName, Duration FROM otel_traces) ON SpanName IN ('task open') USING sum(Duration)",
    ],
)
def test_every_way_of_reading_works(statement: str, hubscope: Hubscope, lake: Path) -> None:
    """SELECT and its kin, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN run."""
    result = hubscope("sql", statement, "--lake", lake)
    assert result.exit_code == 0, result.output


def test_a_name_that_is_no_query(hubscope: Hubscope, lake: Path) -> None:
    """A single word that is no shipped query is said to be none, not sent to the engine as SQL."""
    result = hubscope("sql", "startup_phase", "--lake", lake)
    assert result.exit_code == 2
    assert "no shipped query 'startup_phase'" in result.stderr


def test_no_lake(hubscope: Hubscope, tmp_path: Path) -> None:
    """A folder without a lake is exit 4, with what fills one."""
    result = hubscope("sql", "SELECT 1", "--lake", tmp_path / "none")
    assert result.exit_code == 4
    assert "hubscope run" in result.stderr

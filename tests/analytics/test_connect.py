"""connect(): views over a snapshot, the shims, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from hubscope import lake_schema
from hubscope.analytics import engine
from hubscope.analytics.connect import connect
from hubscope.errors import ConfigError, LakeError


def test_every_table_is_a_view_with_the_lakes_columns(lake: Any) -> None:
    """A table that holds rows and one that does not exist yet have the same columns as the schema."""
    lake.run().trace(lake.span("GET /", 3))
    connection = connect(lake.write())
    for name, schema in lake_schema.SCHEMAS.items():
        described = connection.execute(f"DESCRIBE {name}").fetchall()
        assert [row[0] for row in described] == schema.names
    assert connection.execute("SELECT count(*), min(SpanName) FROM otel_traces").fetchall() == [(1, "GET /")]
    assert connection.execute("SELECT count(*) FROM otel_logs").fetchall() == [(0,)]


def test_views_keep_to_the_snapshot_they_were_made_on(lake: Any) -> None:
    """Rows that arrive after connect() are seen by the next connection, not by this one."""
    run = lake.run()
    run.trace(lake.span("GET /", 3))
    path = lake.write()
    before = connect(path)
    run.trace(lake.span("GET /", 3))
    lake.write()
    assert before.execute("SELECT count(*) FROM otel_traces").fetchall() == [(1,)]
    assert connect(path).execute("SELECT count(*) FROM otel_traces").fetchall() == [(2,)]


@pytest.mark.parametrize("name", ["it's; a lake", "what? *"])
def test_any_path_is_only_a_path(name: str, new_lake: Any, tmp_path: Path) -> None:
    """Quotes, spaces and wildcards in the lake's path mean themselves."""
    lake = new_lake()
    lake.path = tmp_path / name
    lake.run().trace(lake.span("GET /", 3))
    assert connect(lake.write()).execute("SELECT count(*) FROM otel_traces").fetchall() == [(1,)]


def test_shims(lake: Any) -> None:
    """Each shim gives what its definition says, on present, missing and malformed values."""
    connection = connect(lake.write())
    row = connection.execute(
        "SELECT attr(m, 'a'), attr(m, 'x'), has_attr(m, 'a'), has_attr(m, 'x'), attr_f(m, 'a'), attr_f(m, 'b'),"
        " bucket_ns(1234, 100), signed(3::UBIGINT) - signed(5::UBIGINT), ts_ns(TIMESTAMPTZ '1970-01-01 00:00:01Z')"
        " FROM (SELECT MAP {'a': '1.5', 'b': 'text'} AS m)"
    ).fetchone()
    assert row == ("1.5", None, True, False, 1.5, None, 1200, -2, 1_000_000_000)
    aggregated = connection.execute(
        "SELECT q50(x), q95(x), q99(x), worst(x::VARCHAR, x) FROM range(101) t(x)"
    ).fetchone()
    assert aggregated == (50.0, 95.0, 99.0, "100")


def test_no_lake_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    """A folder that is no lake is named, and what fills one."""
    with pytest.raises(LakeError, match="there is no hubscope lake at") as caught:
        connect(tmp_path / "nowhere")
    assert "hubscope run" in caught.value.remedy


def test_a_lake_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    """The version in the table's configuration is checked before anything is read."""
    DeltaTable.create(
        str(tmp_path / lake_schema.TRACES),
        lake_schema.SCHEMAS[lake_schema.TRACES],
        configuration={lake_schema.LAKE_VERSION_KEY: str(lake_schema.LAKE_VERSION + 1)},
        raise_if_key_not_exists=False,
    )
    with pytest.raises(LakeError, match=f"version {lake_schema.LAKE_VERSION + 1}") as caught:
        connect(tmp_path)
    assert "upgrade" in caught.value.remedy


def test_a_missing_file_is_named(lake: Any) -> None:
    """A lake whose data files are gone is an error that names the table, not a traceback from the engine."""
    lake.run().trace(lake.span("GET /", 3))
    path = lake.write()
    for uri in DeltaTable(str(path / lake_schema.TRACES)).file_uris():
        Path(uri.removeprefix("file://")).unlink()
    with pytest.raises(LakeError, match="otel_traces"):
        connect(path)


def test_an_older_lake_reads_null_in_columns_it_lacks(tmp_path: Path) -> None:
    """A column added to the schema later is NULL in files written before it."""
    schema = lake_schema.SCHEMAS[lake_schema.TRACES]
    rows = pa.table({"TraceId": pa.array(["0" * 32]), "Duration": pa.array([5], pa.int64())})
    write_deltalake(str(tmp_path / lake_schema.TRACES), rows)
    got = connect(tmp_path).execute("SELECT TraceId, Duration, PluginId, SpanAttributes FROM otel_traces").fetchall()
    assert got == [("0" * 32, 5, None, None)]
    assert "PluginId" in schema.names


def test_bad_limits_are_refused(lake: Any) -> None:
    """Nonsense for memory or threads is a configuration error that shows a good value."""
    path = lake.write()
    with pytest.raises(ConfigError, match="memory_limit") as caught:
        connect(path, memory_limit="lots")
    assert "2GB" in caught.value.remedy


def test_hot_attributes_become_columns() -> None:
    """The loader replaces map look-ups only for attributes that have a column, keeps prefixes, and leaves the rest."""
    assert engine.for_lake("attr(SpanAttributes, 'hub.plugin.id')") == "PluginId"
    assert engine.for_lake("attr(s.SpanAttributes,'hub.plugin.id')") == "s.PluginId"
    assert engine.for_lake("attr(ResourceAttributes, 'service.version')") == "ServiceVersion"
    assert engine.for_lake("has_attr(LogAttributes, 'hub.plugin.id')") == "(PluginId IS NOT NULL)"
    assert engine.for_lake("attr(SpanAttributes, 'my.own')") == "attr(SpanAttributes, 'my.own')"
    assert engine.for_lake("ts_ns(Timestamp), ts_ns(t.TimeUnix)") == "TimestampUnixNano, t.TimeUnixNano"


def test_every_shipped_query_runs_on_an_empty_lake(lake: Any) -> None:
    """Each file parses, binds and finds its columns, with no row in the lake."""
    sql = engine.Engine(connect(lake.write()))
    values = {"service": "x", "since_ns": 0, "until_ns": 2**62, "trace_id": "0" * 32, "operation": "x", "shape": "x"}
    values |= {"min_ns": 1, "min_count": 5, "other_shape": "y", "plugin": "p", "hook": "h", "limit_s": 1.0}
    values |= {"threshold": 1.0, "value": "duration", "metric": "m", "version": "1", "step_s": 60, "window_ns": 10**9}
    for name in engine.names():
        assert sql.rows(name, **values) == []


def test_every_shipped_query_says_what_and_why() -> None:
    """The first lines of each file are its answer and its reason."""
    for name in engine.names():
        head = [line for line in engine.source(name).splitlines() if line.startswith("--")]
        assert len(engine.about(name)) > 20, name
        assert any(line.startswith("-- Why: ") for line in head), name


def test_every_shipped_query_is_used_and_every_used_query_is_shipped() -> None:
    """Files and uses are held against each other both ways."""
    package = Path(engine.__file__).parent
    code = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    for name in engine.names():
        assert f'"{name}"' in code, f"sql/{name}.sql is not used by any code"


def test_a_missing_value_is_named(lake: Any) -> None:
    """A query run without one of its values says which."""
    with pytest.raises(ConfigError, match=r"\$trace_id"):
        engine.Engine(connect(lake.write())).rows("trace_spans")


def test_nothing_but_the_caller_writes_to_stdout(lake: Any) -> None:
    """DuckDB draws no progress bar: scripts read stdout."""
    lake.run().trace(lake.span("GET /", 3))
    connection = connect(lake.write())
    assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)

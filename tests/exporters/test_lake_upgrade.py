"""Lakes that older versions of hubscope wrote (tests/exporters/old_lakes), upgraded by this one's start."""

from __future__ import annotations

import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema, write_deltalake

from hubscope.analytics.connect import connect
from hubscope.console import lake_status
from hubscope.errors import LakeError
from hubscope.exporters import lake_merge
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import GAUGE, LAKE_VERSION, LAKE_VERSION_KEY, SCHEMAS, TRACES

# Each holds two segments of a span, a log record and a point of each metric kind: files that delta-rs wrote, files
# that pyarrow wrote, and a lake from before the columns TaskName and PersonaId.
OLD = Path(__file__).parent / "old_lakes"
ALL = sorted(path.name.split(".")[0] for path in OLD.glob("*.tar.xz"))


@pytest.fixture(params=ALL)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(OLD / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path / "lake", filter="data")
    return tmp_path / "lake"


def test_the_old_lakes_are_old(tmp_path: Path) -> None:
    """One of them lacks columns, or this file tests nothing."""
    with tarfile.open(OLD / "fewer_columns.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    names = {field.name for field in DeltaTable(f"{tmp_path}/{GAUGE}").schema().fields}
    assert set(SCHEMAS[GAUGE].names) - names >= {"TaskName", "PersonaId"}


def test_an_old_lake_is_read_as_it_is(old: Path) -> None:
    """Before anything has upgraded it, every table can be queried in this version's columns."""
    connection = connect(old)
    for name, schema in SCHEMAS.items():
        found = connection.sql(f"SELECT * FROM {name}").to_arrow_table()
        assert found.column_names == schema.names
        assert found.num_rows == (2 if name.startswith("otel_") else 0), name


def test_a_start_upgrades_it_in_place(old: Path, lakes: Any) -> None:
    """The exporter adds columns and tables, touches no file, knows which segments are there, and goes on from them."""
    before = lakes.parquet_files(old)
    shutil.rmtree(old / "otel_logs")  # older still: a table is not there at all
    before = lakes.parquet_files(old)
    exporter = LakeExporter(str(old), "hubscope-collector/0123456789abcdef", upkeep=False)
    assert lakes.parquet_files(old) == before
    for name, schema in SCHEMAS.items():
        table = DeltaTable(f"{old}/{name}")
        assert {field.name for field in table.schema().fields} == set(schema.names)
        assert table.metadata().configuration[LAKE_VERSION_KEY] == str(LAKE_VERSION)
    exporter.export(lakes.batch(2, "again"))
    exporter.export(lakes.batch(3, "new"))
    assert lakes.seen(old) == ["new", "old 1", "old 2"]
    versions = {name: DeltaTable(f"{old}/{name}").version() for name in SCHEMAS}
    LakeExporter(str(old), "hubscope-collector/0123456789abcdef", upkeep=False)
    assert {name: DeltaTable(f"{old}/{name}").version() for name in SCHEMAS} == versions


def test_files_of_both_versions_are_merged_and_read_alike(
    old: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new files read as one table, before and after they became one file; what a file lacks is null."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 2)
    exporter = LakeExporter(str(old), upkeep=False)
    row = {**dict.fromkeys(SCHEMAS[GAUGE].names), "MetricName": "new", "PersonaId": "p"}
    row |= {"Date": 20_000, "TimeUnix": 20_000 * 86_400_000_000, "Value": 3.0}
    new = pa.Table.from_pylist([row], schema=SCHEMAS[GAUGE])
    exporter.export(lakes.Batch(3, 1, {GAUGE: new, TRACES: lakes.rows("new")}))
    upkeep = lakes.upkeep(old)
    question = "SELECT MetricName, Value, ServiceVersion, PersonaId FROM otel_metrics_gauge ORDER BY 2"
    expected = [("g", 1.0, "1.0", None), ("g", 2.0, "1.0", None), ("new", 3.0, None, "p")]
    spans = "SELECT SpanName, DbQuerySummary, Events[1].Name, len(Links), ServiceName FROM otel_traces ORDER BY 1"
    for _ in range(2):
        connection = connect(old)
        assert connection.execute(question).fetchall() == expected
        assert connection.execute(spans).fetchall() == [
            ("new", None, "event of new", 0, "hub"),
            ("old 1", "SELECT t", "event", 1, "old hub"),
            ("old 2", "SELECT t", "event", 1, "old hub"),
        ]
        for name in (GAUGE, TRACES):
            upkeep.merge(name)
            assert len(DeltaTable(f"{old}/{name}").file_uris()) == 1
    assert lake_status.read(str(old)).services[0].name == "hub"


def test_two_collectors_upgrade_at_once(old: Path) -> None:
    """Several exporters that start on an old lake together all start, and it has each column once."""
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(LakeExporter, str(old), f"app {n}", None, False) for n in range(4)]:
            done.result()
    names = [field.name for field in DeltaTable(f"{old}/{GAUGE}").schema().fields]
    assert sorted(names) == sorted(SCHEMAS[GAUGE].names)


def test_columns_of_a_later_version_survive_a_merge(
    tmp_path: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that this hubscope does not know, added within the same lake version, is neither refused nor lost."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 2)
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    exporter.export(lakes.batch(1, "a"))
    table = DeltaTable(f"{tmp_path}/{TRACES}")
    table.alter.add_columns([Field("Later", Schema.from_arrow(pa.schema([("x", pa.string())])).fields[0].type)])
    later = lakes.rows("b").append_column("Later", pa.array(["kept"]))
    write_deltalake(table, later, mode="append")
    again = LakeExporter(str(tmp_path), "another", upkeep=False)
    again.export(lakes.batch(1, "c"))
    lakes.upkeep(tmp_path).merge(TRACES)
    merged = DeltaTable(f"{tmp_path}/{TRACES}")
    assert len(merged.file_uris()) == 1
    rows = merged.to_pyarrow_table(columns=["SpanName", "Later"]).sort_by("SpanName").to_pylist()
    assert [tuple(row.values()) for row in rows] == [("a", None), ("b", "kept"), ("c", None)]


def test_a_foreign_table_is_not_upgraded(tmp_path: Path) -> None:
    """A table without the lake's version in it is refused, not given our columns."""
    write_deltalake(f"{tmp_path}/{TRACES}", pa.table({"x": [1]}))
    with pytest.raises(LakeError, match="without the columns"):
        LakeExporter(str(tmp_path))
    assert [field.name for field in DeltaTable(f"{tmp_path}/{TRACES}").schema().fields] == ["x"]

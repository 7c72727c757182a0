"""The lake exporter over real Delta tables, read back by DuckDB."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.errors import LakeError, PermanentError, RetryableError
from hubscope.exporters import lake, lake_merge, lake_upkeep
from hubscope.exporters.disk import DiskFullError
from hubscope.exporters.lake import LakeExporter
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.lake_schema import LAKE_VERSION, LAKE_VERSION_KEY, SCHEMAS, TRACES
from hubscope.processors.batch import Batch

DAY_NS = 86_400 * 10**9


def rows(*names: str, day: int = 20_000) -> pa.Table:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for name in names:
        attributes = [KeyValue(key=name, value=AnyValue(string_value="v"))]
        span = spans.add(name=name, start_time_unix_nano=day * DAY_NS + 1, attributes=attributes)
        span.events.add(name=f"event of {name}", time_unix_nano=5)
    return decode([Record(Signal.TRACES, request.SerializeToString(), 1)])[TRACES]


def batch(segment: int, *names: str, day: int = 20_000) -> Batch:
    return Batch(segment, 1, {TRACES: rows(*names, day=day)})


def stored(folder: Path) -> list[str]:
    found: list[str] = DeltaTable(f"{folder}/{TRACES}").to_pyarrow_table(columns=["SpanName"])["SpanName"].to_pylist()
    return sorted(found)


def test_all_tables_stand_from_the_start(tmp_path: Path) -> None:
    """An empty lake has every table, with the lake's version and the schema, partitioned by date."""
    LakeExporter(str(tmp_path))
    for name in SCHEMAS:
        table = DeltaTable(f"{tmp_path}/{name}")
        assert table.metadata().configuration[LAKE_VERSION_KEY] == str(LAKE_VERSION)
        assert table.metadata().partition_columns == ["Date"]
        assert [field.name for field in table.schema().fields] == SCHEMAS[name].names


def test_a_segment_is_written_once(tmp_path: Path) -> None:
    """The same segment again, from the same exporter or a new one, adds nothing; the next one is added."""
    exporter = LakeExporter(str(tmp_path))
    exporter.export(batch(1, "a"))
    exporter.export(batch(1, "a"))
    again = LakeExporter(str(tmp_path))
    again.export(batch(1, "a"))
    again.export(batch(2, "b"))
    assert stored(tmp_path) == ["a", "b"]
    assert again.version(TRACES) == 2
    assert (exporter.rows[TRACES], again.rows[TRACES]) == (1, 1)


def test_a_broken_clock_makes_no_file_a_span(tmp_path: Path) -> None:
    """Spans of a thousand different days in one batch are all stored, in no more than 65 files, their times kept."""
    days = pa.concat_tables([rows(*["usual"] * 5), *[rows(f"s{n}", day=n * 30) for n in range(1000)]])
    received_unix_nano = 20_001 * DAY_NS
    LakeExporter(str(tmp_path)).export(Batch(1, received_unix_nano, {TRACES: days}))
    table = DeltaTable(f"{tmp_path}/{TRACES}")
    found = table.to_pyarrow_table(columns=["SpanName", "Date", "TimestampUnixNano"])
    assert len(table.file_uris()) <= 65
    assert sorted(found["SpanName"].to_pylist()) == sorted(days["SpanName"].to_pylist())
    assert sorted(found["TimestampUnixNano"].to_pylist()) == sorted(days["TimestampUnixNano"].to_pylist())
    assert found["Date"].to_pylist().count(date(2024, 10, 4)) == 5
    assert found["Date"].to_pylist().count(date(2024, 10, 5)) >= 900


def test_writers_with_names_of_their_own_do_not_meet(tmp_path: Path) -> None:
    """Two collectors that both write a segment 1 to one lake lose nothing, though both know an older table."""
    one, two = LakeExporter(str(tmp_path), "one"), LakeExporter(str(tmp_path), "two")
    one.export(batch(1, "a"))
    two.export(batch(1, "b"))
    one.export(batch(2, "c"))
    assert stored(tmp_path) == ["a", "b", "c"]


def test_derived_rows_are_stored_with_the_others(tmp_path: Path) -> None:
    """What processors derived is appended in the same transaction as what arrived."""
    LakeExporter(str(tmp_path)).export(batch(1, "a").with_derived(TRACES, rows("derived")))
    assert stored(tmp_path) == ["a", "derived"]
    assert len(DeltaTable(f"{tmp_path}/{TRACES}").file_uris()) == 1


def test_days_are_partitions(tmp_path: Path) -> None:
    """Rows of two days stand in two folders."""
    exporter = LakeExporter(str(tmp_path))
    exporter.export(Batch(1, 1, {TRACES: pa.concat_tables([rows("a"), rows("b", day=20_001)])}))
    folders = sorted(path.name for path in (tmp_path / TRACES).iterdir() if path.name.startswith("Date="))
    assert folders == ["Date=2024-10-04", "Date=2024-10-05"]


def test_duckdb_reads_maps_and_lists(tmp_path: Path) -> None:
    """DuckDB reads attributes by key and events by position from the files."""
    LakeExporter(str(tmp_path)).export(batch(1, "a"))
    (file,) = DeltaTable(f"{tmp_path}/{TRACES}").file_uris()
    query = "SELECT SpanAttributes['a'], Events[1].Name, len(Links) FROM read_parquet($1)"
    assert duckdb.execute(query, [file]).fetchall() == [("v", "event of a", 0)]


def test_a_lake_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A table that a newer hubscope wrote is not touched, and the error says what to do."""
    path = f"{tmp_path}/{TRACES}"
    DeltaTable.create(
        path,
        SCHEMAS[TRACES],
        partition_by=["Date"],
        configuration={LAKE_VERSION_KEY: str(LAKE_VERSION + 1)},
        raise_if_key_not_exists=False,
    )
    with pytest.raises(LakeError, match=f"version {LAKE_VERSION + 1}") as caught:
        LakeExporter(str(tmp_path))
    assert "upgrade" in caught.value.remedy


def test_a_full_disk_is_told_before_delta_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the room a commit needs nothing is written and the segment can come again; with room it is written."""
    exporter = LakeExporter(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("hubscope.exporters.disk.MIN_FREE_BYTES", 1 << 62)
        with pytest.raises(DiskFullError, match="No space left"):
            exporter.export(batch(1, "a"))
    assert stored(tmp_path) == []
    exporter.export(batch(1, "a"))
    assert stored(tmp_path) == ["a"]


class PanicException(BaseException):
    """As pyo3 names what it makes of a panic."""


@pytest.mark.parametrize("has_room", [False, True])
def test_a_panic_waits_for_room_or_is_the_rows_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    """A panic of delta-rs on a full disk is retryable, with room it is the rows' fault; the next ones are taken."""
    exporter = LakeExporter(str(tmp_path))

    def panics(*_: object, **__: object) -> None:
        if not has_room:
            monkeypatch.setattr("hubscope.exporters.disk.MIN_FREE_BYTES", 1 << 62)  # gone since it was looked at
        raise PanicException("called `Result::unwrap()` on an `Err` value")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", panics)
        patch.setattr(LakeExporter, "_commit_locally", lambda *_: False)
        with pytest.raises(PermanentError if has_room else DiskFullError, match="unwrap"):
            exporter.export(batch(1, "a"))
    monkeypatch.setattr("hubscope.exporters.disk.MIN_FREE_BYTES", 0)
    exporter.export(batch(1, "a"))
    assert stored(tmp_path) == ["a"]


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    """A Delta table of that name with other columns is named, not written into."""
    write_deltalake(f"{tmp_path}/{TRACES}", pa.table({"x": [1]}))
    with pytest.raises(LakeError, match="without the columns"):
        LakeExporter(str(tmp_path))


def test_a_lake_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A path that cannot be a folder is a LakeError with a remedy."""
    (tmp_path / "lake").write_text("x")
    with pytest.raises(LakeError) as caught:
        LakeExporter(str(tmp_path / "lake"))
    assert caught.value.remedy


def test_rows_in_another_schema_are_refused_for_good(tmp_path: Path) -> None:
    """Rows that Delta cannot take are a permanent error, and the table still takes the next ones."""
    exporter = LakeExporter(str(tmp_path))
    with pytest.raises(PermanentError):
        exporter.export(Batch(1, 1, {TRACES: pa.table({"x": [1]})}))
    exporter.export(batch(2, "a"))
    assert stored(tmp_path) == ["a"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_lake_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """Where the folder refuses a file, the error is retryable; when it gives way, the segment is written once."""
    exporter = LakeExporter(str(tmp_path))
    log = tmp_path / TRACES / "_delta_log"
    log.chmod(0o500)
    with pytest.raises(RetryableError):
        exporter.export(batch(1, "a"))
    log.chmod(0o700)
    exporter.export(batch(1, "a"))
    assert stored(tmp_path) == ["a"]


def test_a_lake_that_vanished_is_tried_again(tmp_path: Path) -> None:
    """Where the table's folder is replaced by a file, the error is retryable and names the table."""
    exporter = LakeExporter(str(tmp_path))
    kept = tmp_path / "kept"
    (tmp_path / TRACES).rename(kept)
    (tmp_path / TRACES).write_text("in the way")
    with pytest.raises(RetryableError, match=TRACES):
        exporter.export(batch(1, "a"))
    (tmp_path / TRACES).unlink()
    kept.rename(tmp_path / TRACES)
    exporter.export(batch(1, "a"))
    assert stored(tmp_path) == ["a"]


def test_small_files_are_merged_and_replaced_ones_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small commits leave few files in the snapshot with the same rows, and the old files go when they may."""
    monkeypatch.setattr(lake_upkeep, "COMMITS_BETWEEN", 8)
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 4)
    monkeypatch.setattr(lake_upkeep, "VACUUM_EVERY_S", 0.0)
    exporter = LakeExporter(str(tmp_path), policy=LakePolicy(reader_grace_s=0.0, min_free_disk_bytes=0))
    for segment in range(1, 17):
        exporter.export(batch(segment, f"s{segment:02d}"))
        assert exporter.await_upkeep(30)
    assert stored(tmp_path) == [f"s{segment:02d}" for segment in range(1, 17)]
    assert len(DeltaTable(f"{tmp_path}/{TRACES}").file_uris()) == 1
    assert len(list((tmp_path / TRACES).rglob("*.parquet"))) <= 10  # one, and those replaced just now
    assert LakeExporter(str(tmp_path)).version(TRACES) == 16


def test_a_busy_collector_merges_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is busy merges wait, until the files are too many for readers; with time to spare they are made."""
    monkeypatch.setattr(lake_upkeep, "COMMITS_BETWEEN", 1)
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 4)
    monkeypatch.setattr(lake_upkeep, "FILES_UNDER_LOAD", 10)
    busy = [True]
    exporter = LakeExporter(str(tmp_path), policy=LakePolicy(min_free_disk_bytes=0), is_busy=lambda: busy[0])

    def files_after(segments: range) -> list[int]:
        found = []
        for segment in segments:
            exporter.export(batch(segment, f"s{segment:02d}"))
            assert exporter.await_upkeep(30)
            found.append(len(DeltaTable(f"{tmp_path}/{TRACES}").file_uris()))
        return found

    assert files_after(range(1, 11)) == list(range(1, 11))
    assert files_after(range(11, 12)) == [1]
    assert files_after(range(12, 16)) == [2, 3, 4, 5]
    busy[0] = False
    assert files_after(range(16, 17)) == [1]
    assert stored(tmp_path) == [f"s{segment:02d}" for segment in range(1, 17)]


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are made as commits come, and the settings that clean the log are in the table."""
    monkeypatch.setattr(lake, "_CHECKPOINT_EVERY", 5)
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    for segment in range(1, 8):
        exporter.export(batch(segment, "s"))
    assert list((tmp_path / TRACES / "_delta_log").glob("*.checkpoint*.parquet"))
    assert (
        DeltaTable(f"{tmp_path}/{TRACES}").metadata().configuration["delta.logRetentionDuration"]
        == "interval 10 minutes"
    )

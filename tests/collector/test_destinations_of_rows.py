"""Destinations that take rows: what is kept for them, and ClickHouse beside others, in trouble and through kills."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from hubscope.collector.kept_rows import KeptRows
from hubscope.collector.log.wal import sealed_segments
from hubscope.collector.segments import batch_of
from hubscope.errors import LakeError
from hubscope.exporters.base import Bound
from hubscope.exporters.clickhouse import ClickHouseConfig
from hubscope.exporters.forward import ForwardConfig
from hubscope.lake_schema import ROLLUP, SCHEMAS, TRACES
from hubscope.processors.batch import Batch
from tests.collector.destinations_lab import MISBEHAVIOURS, NO_PROCESSORS, Healthy, Lab, Misbehaving, spans, until

if sys.platform == "win32":
    pytest.skip("chdb has no wheel for Windows", allow_module_level=True)

from tests.exporters.clickhouse_server import ClickHouse
from tests.exporters.test_clickhouse import EVERYTHING


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.end()


@pytest.fixture
def healthy() -> Iterator[Healthy]:
    with closing(Healthy()) as made:
        yield made


@pytest.fixture
def server() -> Iterator[ClickHouse]:
    with closing(ClickHouse()) as made:
        yield made


def names(server: ClickHouse) -> list[str]:
    if not server.query("SELECT 1 AS x FROM system.tables WHERE database = 'd' AND name = 'otel_traces'").num_rows:
        return []
    found = server.query("SELECT SpanName FROM d.otel_traces ORDER BY SpanName").to_pylist()
    return [row["SpanName"] for row in found]


def test_rows_are_kept_as_they_are(tmp_path: Path) -> None:
    """Every table of a segment is read back equal, what arrived and what was derived apart; none is a file too."""
    kept = KeptRows(tmp_path)
    arrived = batch_of(7, EVERYTHING, NO_PROCESSORS)
    batch = Batch(7, 5, arrived.tables, {TRACES: arrived.tables[TRACES].slice(0, 1)})
    size_bytes = kept.keep(batch, 3, {2, 1})
    assert size_bytes == kept.size_bytes(7) == (tmp_path / "rows" / "0000000000000007.arrow").stat().st_size
    kept.keep(Batch(8, 1))
    found = kept.read(7)
    assert (found.request_count, found.set_aside, found.has_checksum) == (3, {1, 2}, True)
    assert (found.batch.segment, found.batch.received_unix_nano) == (7, 5)
    assert set(found.batch.tables) == set(SCHEMAS) - {ROLLUP}
    assert set(found.batch.derived) == {TRACES}
    for before, after in ((batch.tables, found.batch.tables), (batch.derived, found.batch.derived)):
        for name, table in after.items():
            assert table.to_pylist() == before[name].to_pylist()
            assert table.schema.equals(SCHEMAS[name])
    assert kept.read(8).batch == Batch(8, 1)
    assert kept.segments() == [7, 8]
    kept.forget_up_to(7)
    assert kept.segments() == [8]


def test_rows_that_an_older_version_kept_are_read(tmp_path: Path) -> None:
    """A file without the frame and the first stream has all its rows in `tables`, and says that it has no checksum."""
    spans = batch_of(7, EVERYTHING, NO_PROCESSORS).tables[TRACES]
    metadata = {b"hubscope.table": TRACES.encode()}
    (tmp_path / "rows").mkdir()
    with pa.ipc.new_stream(tmp_path / "rows" / f"{7:016d}.arrow", spans.schema.with_metadata(metadata)) as writer:
        writer.write_table(spans.replace_schema_metadata(metadata))
    (tmp_path / "rows" / f"{8:016d}.arrow").touch()
    found = KeptRows(tmp_path).read(7)
    assert found.batch.tables[TRACES].equals(spans)
    assert not found.has_checksum
    assert KeptRows(tmp_path).read(8).batch.tables == {}


@pytest.mark.parametrize("position", [0.0, 0.1, 0.3, 0.6, 0.99])
def test_a_byte_that_changed_on_the_disk_is_found(tmp_path: Path, position: float) -> None:
    """Arrow's streams have no checksum of their own: the frame's tells a changed byte anywhere."""
    kept = KeptRows(tmp_path)
    kept.keep(batch_of(7, EVERYTHING, NO_PROCESSORS))
    content = bytearray(kept.path(7).read_bytes())
    content[int(position * len(content))] ^= 16
    kept.path(7).write_bytes(content)
    with pytest.raises(LakeError, match=r"0000000000000007\.arrow"):
        kept.read(7)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_rows_that_cannot_be_read_are_an_error_with_a_name(tmp_path: Path, damage: bytes | None) -> None:
    """A file that is gone, or cut, or something else is a LakeError that names it, never rows that are wrong."""
    kept = KeptRows(tmp_path)
    kept.keep(batch_of(7, EVERYTHING, NO_PROCESSORS))
    path = tmp_path / "rows" / "0000000000000007.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage or content + b"\x00\x00")
    with pytest.raises(LakeError, match=r"0000000000000007\.arrow"):
        kept.read(7)
    path.unlink()
    with pytest.raises(LakeError, match=r"0000000000000007\.arrow"):
        kept.read(7)


@pytest.mark.parametrize("answer", MISBEHAVIOURS)
def test_a_broken_clickhouse_never_delays_another(
    lab: Lab, healthy: Healthy, server: ClickHouse, answer: Callable[[socket.socket], None]
) -> None:
    """Beside a ClickHouse that misbehaves, another one and an OTLP destination get everything, and the log is freed."""
    with closing(Misbehaving(answer)) as broken:
        bad = ClickHouseConfig("bad", f"http://127.0.0.1:{broken.port}", timeout_s=1.0)
        good = ClickHouseConfig("good", server.url, database="d")
        found = lab.start(ForwardConfig("otlp", healthy.url), clickhouse=(bad, good))
        wanted = [f"s{number}" for number in range(9)]
        for name in wanted:
            lab.add(spans(name))
        until(lambda: healthy.names == wanted, "the OTLP destination has all")
        until(lambda: names(server) == wanted, "the healthy ClickHouse has all")
        first, second = found.of_rows
        until(lambda: first.failed, "the broken one was tried")
        assert first.status()["sent"] == 0
        until(lambda: second.cursor.segment == lab.last, "its place is noted")
        until(lambda: found.finished(lab.last) == lab.last, "the log need not hold anything for the broken one")
        found.forget(lab.last)
        assert len(list((lab.state / "rows").iterdir())) == 9


def test_what_waits_for_clickhouse_is_bounded(lab: Lab, server: ClickHouse) -> None:
    """Of what is kept for it the oldest goes beyond the bound, counted in rows; then it gets the rest."""
    server.before = lambda sql: 503
    config = ClickHouseConfig("ch", server.url, database="d", bound=Bound(size_bytes=1))
    (delivery,) = lab.start(clickhouse=(config,)).of_rows
    for number in range(5):
        lab.add(spans(f"s{number}", f"t{number}"))
    until(lambda: delivery.cursor.segment == 5, "all were passed over")
    server.before = lambda sql: None
    assert delivery.status()["dropped_by_reason"] == {"too much": 10}
    assert (delivery.status()["takes"], delivery.status()["sent"]) == ("rows", 0)


def test_rows_that_were_damaged_on_disk_stop_nothing(lab: Lab, server: ClickHouse) -> None:
    """A segment that cannot be read is passed over and said; the next ones go in."""
    server.before = lambda sql: 503
    (delivery,) = lab.start(clickhouse=(ClickHouseConfig("ch", server.url, database="d"),)).of_rows
    for number in range(3):
        lab.add(spans(f"s{number}"))
    (lab.state / "rows" / "0000000000000002.arrow").write_bytes(b"damaged")
    server.before = lambda sql: None
    until(lambda: delivery.cursor.segment == 3, "it went on")
    assert names(server) == ["s0", "s2"]


@pytest.mark.timeout(400)  # three starts of a worker, each a few seconds, on a busy machine ten times that
def test_clickhouse_has_every_row_once_through_kills(lab: Lab, server: ClickHouse) -> None:
    """A worker killed twice while it inserts: what is in the lake is in ClickHouse, each row once."""
    config = ClickHouseConfig("ch", server.url, database="d")
    settings = replace(lab.settings, clickhouse=(config,))
    command = [sys.executable, "-m", "hubscope.collector.worker", "--settings-json", settings.to_json()]
    wanted: list[str] = []
    for kill in (True, True, False):
        for _ in range(10):
            wanted.append(f"s{len(wanted):02d}")
            lab.add(spans(wanted[-1]))
        enough = len(wanted) - 5 if kill else len(wanted)

        def has_enough(enough: int = enough) -> Any:
            return len(names(server)) >= enough

        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
            until(has_enough, f"{enough} rows are there")
            worker.kill() if kill else worker.terminate()
    assert names(server) == wanted
    lake = DeltaTable(f"{settings.lake}/{TRACES}").to_pyarrow_table(columns=["SpanName"])
    assert sorted(lake["SpanName"].to_pylist()) == wanted
    assert sealed_segments(settings.wal_dir) == []
    assert list((lab.state / "rows").iterdir()) == []

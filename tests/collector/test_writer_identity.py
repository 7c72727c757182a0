"""A state folder that is not the one the lake was last written from: nothing acknowledged is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.wal import SegmentWriter, read_segment, sealed_segments, segment_number
from hubscope.collector.otlp.decode import decode
from hubscope.collector.writer_identity import WriterIdentity
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch
from tests.collector.test_worker import spans_request


class Collector:
    """What front and worker do to a state folder and a lake, step by step."""

    def __init__(self, folder: Path, state: str = "state") -> None:
        self.lake, self.state = folder / "lake", folder / state
        self.log = SegmentWriter(self.state / "wal")
        self.start_worker()

    def start_worker(self) -> None:
        self.identity = WriterIdentity(self.state, self.state / "wal")
        self.cursor = Cursor(self.state, "lake")
        self.exporter = LakeExporter(str(self.lake), self.identity.application, upkeep=False, claim=self.identity)

    def take(self, name: str) -> None:
        """A request is acknowledged and its segment sealed."""
        self.log.append([spans_request(name)])
        self.log.seal()

    def work(self, *, dies_before_the_cursor: bool = False) -> None:
        """As `LakeDelivery.run`: all that is sealed goes to the lake."""
        for path in sealed_segments(self.state / "wal"):
            self.identity.compare(self.exporter, self.cursor)
            if segment_number(path) > self.cursor.segment:
                self.exporter.export(Batch(segment_number(path), 1, decode(list(read_segment(path)))))
                if dies_before_the_cursor:
                    return
                self.cursor.advance(segment_number(path))
            path.unlink()

    def names(self) -> list[str]:
        return sorted(
            DeltaTable(f"{self.lake}/{TRACES}").to_pyarrow_table(columns=["SpanName"])["SpanName"].to_pylist()
        )


def run(folder: Path, *names: str, state: str = "state") -> Collector:
    """A collector from its start to its stop."""
    collector = Collector(folder, state)
    for name in names:
        collector.take(name)
        collector.work()
    collector.log.close()
    return collector


def test_a_crash_between_commit_and_cursor_doubles_nothing(tmp_path: Path) -> None:
    """What the lake has of this session or the one before is not written again, and the writer stays the same."""
    collector = Collector(tmp_path)
    collector.take("a")
    writer = collector.identity.id
    collector.work(dies_before_the_cursor=True)
    collector.start_worker()  # the worker alone
    collector.work()
    collector.take("b")
    collector.work(dies_before_the_cursor=True)
    collector.log.close()
    collector = run(tmp_path, "c")  # the whole collector
    collector.work()
    assert collector.names() == ["a", "b", "c"]
    assert collector.identity.id == writer


def test_a_restored_state_folder_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Restored from a backup that the lake is ahead of, it becomes a writer of its own, and says so; also where the
    lake was away at first, so that its numbers have caught up."""
    run(tmp_path, "a")
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    run(tmp_path, "b", "c", "d")
    shutil.rmtree(tmp_path / "state")
    shutil.copytree(tmp_path / "backup", tmp_path / "state")
    collector = Collector(tmp_path)
    for name in "efghi":
        collector.take(name)
    collector.log.close()
    collector = Collector(tmp_path)
    collector.work()
    assert collector.names() == list("abcdefghi")
    assert "was restored from a backup" in caplog.text


@pytest.mark.parametrize("has_worked", [True, False])
def test_a_snapshot_of_a_running_collector_doubles_nothing(tmp_path: Path, has_worked: bool) -> None:
    """What stood in the log when the snapshot was made went to the lake in the same session: it is there."""
    collector = Collector(tmp_path)
    collector.take("a")
    if has_worked:
        collector.work()
    collector.take("b")
    shutil.copytree(tmp_path / "state", tmp_path / "snapshot")
    collector.take("c")
    collector.work()
    collector = Collector(tmp_path, "snapshot")
    collector.take("d")
    collector.work()
    assert collector.names() == ["a", "b", "c", "d"]


def test_two_copies_of_a_state_folder_that_run_at_once_lose_nothing(tmp_path: Path) -> None:
    """Whichever meets a number of the other's becomes a writer of its own, also where both had looked before."""
    run(tmp_path, "a")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    one, two = Collector(tmp_path), Collector(tmp_path, "copy")
    one.identity.compare(one.exporter, one.cursor)
    two.identity.compare(two.exporter, two.cursor)
    for name in "bcd":
        one.take(f"one {name}")
        two.take(f"two {name}")
        one.work()
        two.work()
    assert one.names() == ["a", *(f"{which} {name}" for which in ("one", "two") for name in "bcd")]
    assert one.identity.id != two.identity.id


def test_a_deleted_state_folder_begins_anew(tmp_path: Path) -> None:
    """Without the folder, or with its log and cursors gone, numbers begin anew under another writer."""
    run(tmp_path, "a", "b")
    for name in ("wal", "cursors"):
        shutil.rmtree(tmp_path / "state" / name)
    run(tmp_path, "c")
    shutil.rmtree(tmp_path / "state")
    assert run(tmp_path, "d").names() == ["a", "b", "c", "d"]

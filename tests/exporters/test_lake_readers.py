"""Leases of readers, and the vacuum that asks for them: real reader processes over real files."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from hubscope import lake_readers
from hubscope.analytics.connect import connect
from hubscope.exporters import lake_merge
from hubscope.exporters.lake import LakeExporter
from hubscope.exporters.lake_files import Storage
from hubscope.exporters.lake_vacuum import ORPHAN_AGE_S
from hubscope.lake_schema import TRACES

READER = """
import sys
from hubscope.analytics.connect import connect
connection = connect(sys.argv[1])
ask = "SELECT string_agg(SpanName, ' ' ORDER BY SpanName) FROM otel_traces"
for _ in sys.stdin:
    print(connection.execute(ask).fetchone()[0], flush=True)
"""


@contextmanager
def reader(lake: Path) -> Iterator[Any]:
    """A process that opened the lake; each call asks it for the names of all spans."""
    command = [sys.executable, "-c", READER, str(lake)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> list[str]:
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().split()

        ask.process = process  # type: ignore[attr-defined]
        yield ask
        process.stdin.close()


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lakes: Any) -> Path:
    """Four small files that the next merge makes one."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 2)
    monkeypatch.setattr("hubscope.exporters.lake_upkeep.VACUUM_EVERY_S", 0.0)
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    for segment, name in enumerate("abcd", start=1):
        exporter.export(lakes.batch(segment, name))
    return tmp_path


def leases(lake: Path) -> list[Path]:
    return list((lake / lake_readers.FOLDER).glob("*.json"))


def test_what_a_reader_holds_stays_until_it_ends(lake: Path, lakes: Any) -> None:
    """While a process holds a snapshot, everything under it is merged and vacuumed without its noticing; once it is
    killed, the next vacuum takes its files and its lease."""
    before = lakes.parquet_files(lake)
    with reader(lake) as ask:
        assert ask() == ["a", "b", "c", "d"]
        upkeep = lakes.upkeep(lake, reader_grace_s=0.0)
        upkeep.merge(TRACES)
        assert len(DeltaTable(f"{lake}/{TRACES}").file_uris()) == 1
        assert before < lakes.parquet_files(lake)
        LakeExporter(str(lake), upkeep=False).export(lakes.batch(5, "e"))
        upkeep.merge(TRACES)
        assert ask() == ["a", "b", "c", "d"]
        assert lakes.seen(lake) == ["a", "b", "c", "d", "e"]
        ask.process.kill()
        ask.process.wait()
        assert leases(lake)
        upkeep.merge(TRACES)
    assert not leases(lake)
    assert not before & lakes.parquet_files(lake)
    assert lakes.seen(lake) == ["a", "b", "c", "d", "e"]


def test_a_connection_of_this_process_holds_its_files_until_it_is_collected(lake: Path, lakes: Any) -> None:
    """A notebook's connection keeps its snapshot however long it lives, and its end is the lease's end."""
    connection = connect(lake)
    upkeep = lakes.upkeep(lake, reader_grace_s=0.0)
    upkeep.merge(TRACES)
    upkeep.merge(TRACES)
    assert connection.execute("SELECT count(*) FROM otel_traces").fetchone() == (4,)
    del connection
    gc.collect()
    assert not leases(lake)
    upkeep.merge(TRACES)
    assert len(lakes.parquet_files(lake)) == 1


def test_a_reader_that_is_opening_holds_everything(lake: Path, lakes: Any) -> None:
    """From its lease until it knows its files, nothing is removed; a lease that cannot be read counts the same."""
    lease = lake_readers.take(str(lake))
    assert lease is not None
    assert lake_readers.held(str(lake)) is None
    upkeep = lakes.upkeep(lake, reader_grace_s=0.0)
    upkeep.merge(TRACES)
    assert len(lakes.parquet_files(lake)) == 5
    lease.hold([])
    assert lake_readers.held(str(lake)) == set()
    leases(lake)[0].write_text("{")
    assert lake_readers.held(str(lake)) is None
    lease.release()
    upkeep.merge(TRACES)
    assert len(lakes.parquet_files(lake)) == 1


def test_a_forked_child_does_not_end_its_parents_lease(lake: Path) -> None:
    """What a child process inherited it does not release."""
    lease = lake_readers.take(str(lake))
    assert lease is not None
    lease._pid += 1  # as the child sees it
    lease.release()
    assert leases(lake)
    lease._pid -= 1
    lease.release()
    assert not leases(lake)


def test_without_a_lease_the_grace_counts(lake: Path, lakes: Any) -> None:
    """What was replaced just now stays while the grace for readers without a lease is not over."""
    lakes.upkeep(lake, reader_grace_s=3600.0).merge(TRACES)
    assert len(lakes.parquet_files(lake)) == 5


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_reader_that_may_not_write_reads_without_a_lease(lake: Path) -> None:
    """A lake of which this user may only read is read all the same."""
    lake.chmod(0o500)
    try:
        assert connect(lake).execute("SELECT count(*) FROM otel_traces").fetchone() == (4,)
    finally:
        lake.chmod(0o700)


def test_no_lease_is_left_where_the_lake_cannot_be_read(lake: Path) -> None:
    """A reader that fails to open the lake holds nothing afterwards."""
    for path in (lake / TRACES).glob("Date=*/*.parquet"):
        path.write_bytes(b"no Parquet")
    with pytest.raises(Exception, match=TRACES):
        connect(lake)
    assert not leases(lake)


def test_what_no_commit_names_goes_when_it_is_old_and_was_seen_before(lake: Path, lakes: Any) -> None:
    """The rest of a killed write stays for a day, one more look, and the readers' grace; a file just written stays."""
    storage, table = Storage(f"{lake}/{TRACES}"), DeltaTable(f"{lake}/{TRACES}")
    fresh, old = "Date=2024-10-04/part-fresh.zstd.parquet", "Date=2024-10-04/part-old.zstd.parquet"
    for path in (fresh, old):
        with storage.writing(path) as file:
            file.write(b"half")
    before_s = time.time() - ORPHAN_AGE_S - 60
    os.utime(lake / TRACES / old, (before_s, before_s))
    upkeep = lakes.upkeep(lake, reader_grace_s=0.0)
    for grace_s, left in ((0.0, 6), (3600.0, 6), (0.0, 5), (0.0, 5)):
        upkeep._vacuum(TRACES, table, storage, (), grace_s)
        assert len(lakes.parquet_files(lake)) == left
    assert (lake / TRACES / fresh).exists()


def test_a_lease_says_whose_it_is(lake: Path) -> None:
    """A person who looks finds the process and the moment in the lease."""
    connection = connect(lake)
    (path,) = leases(lake)
    said = json.loads(path.read_text())
    assert said["pid"] == os.getpid()
    assert abs(said["taken_unix_ns"] - time.time_ns()) < 600e9
    assert len(said["files"]) == 4
    del connection

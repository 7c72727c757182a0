"""Retention by age, size and room on the disk, and the cold tier: real Delta tables, times that the test says."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from hubscope.analytics.connect import connect
from hubscope.exporters import lake_cold, lake_merge
from hubscope.exporters.lake import LakeExporter
from hubscope.exporters.lake_clock import TrustedClock
from hubscope.exporters.lake_files import Storage
from hubscope.exporters.lake_retention import days_beyond, past
from hubscope.exporters.lake_upkeep import Upkeep
from hubscope.lake_paths import COLD, DataFile, files_of
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch

FIRST = 20_000  # 2024-10-04
NAMES = {FIRST: ("a", "b"), FIRST + 1: ("c", "d"), FIRST + 2: ("e", "f")}


@pytest.fixture
def lake(tmp_path: Path, lakes: Any) -> Path:
    """Three days of two files each."""
    folder = tmp_path / "the lake"
    exporter = LakeExporter(str(folder), upkeep=False)
    segment = 0
    for day, names in NAMES.items():
        for name in names:
            segment += 1
            exporter.export(lakes.batch(segment, name, day=day))
    return folder


def at(day: float, lakes: Any) -> Any:
    return lambda: day * lakes.DAY_S


def files(lake: Path) -> list[DataFile]:
    return files_of(DeltaTable(f"{lake}/{TRACES}"))


def size_bytes(lake: Path) -> int:
    return sum(path.stat().st_size for path in lake.rglob("*.parquet") if "_delta_log" not in path.parts)


def test_a_day_goes_when_all_of_it_is_past_its_age(lake: Path, lakes: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A day is dropped once its last moment is older than the retention, not before; what went is said and counted."""
    lakes.upkeep(lake, at(FIRST + 2.99, lakes), retention_s=2 * lakes.DAY_S).keep()
    assert lakes.seen(lake) == list("abcdef")
    upkeep = lakes.upkeep(lake, at(FIRST + 3.01, lakes), retention_s=2 * lakes.DAY_S)
    with caplog.at_level(logging.WARNING):
        upkeep.keep()
    assert lakes.seen(lake) == list("cdef")
    assert "otel_traces of 2024-10-04: 2 rows" in caplog.text
    assert upkeep.status()["dropped"]["age"]["rows"] == 2
    assert "past its retention" in upkeep.status()["last_drop"]


def test_the_oldest_days_go_where_the_lake_is_too_large(lake: Path, lakes: Any) -> None:
    """Whole days go, oldest first, as few as needed; the newest stays, however large it is."""
    sizes = [sum(f.size_bytes for f in files(lake) if f.day == day) for day in sorted({f.day for f in files(lake)})]
    lakes.upkeep(lake, max_size_bytes=sum(sizes)).keep()
    assert lakes.seen(lake) == list("abcdef")
    lakes.upkeep(lake, max_size_bytes=sum(sizes) - 1).keep()
    assert lakes.seen(lake) == list("cdef")
    upkeep = lakes.upkeep(lake, max_size_bytes=1)
    upkeep.keep()
    assert lakes.seen(lake) == list("ef")
    assert upkeep.status()["dropped"]["size"]["rows"] == 2


def test_a_nearly_full_disk_takes_the_oldest_days(
    lake: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Below the watermark the oldest day is dropped and its files leave the disk at once; it says so, once."""
    capacity_bytes = size_bytes(lake) + 1000
    monkeypatch.setattr(Upkeep, "_free_bytes", lambda self: capacity_bytes - size_bytes(lake))
    upkeep = lakes.upkeep(lake, min_free_disk_bytes=1000)
    upkeep.make_room()
    assert lakes.seen(lake) == list("abcdef")
    assert not upkeep.status()["low_disk"]
    upkeep = lakes.upkeep(lake, min_free_disk_bytes=1001)
    with caplog.at_level(logging.WARNING):
        upkeep.make_room()
    assert lakes.seen(lake) == list("cdef")
    assert len(list(lake.rglob("part-*.parquet"))) == 4
    assert upkeep.status()["dropped"]["disk"]["rows"] == 2
    assert "the oldest days were dropped" in upkeep.status()["low_disk"]
    assert "the disk is nearly full" in caplog.text
    upkeep.make_room()
    assert not upkeep.status()["low_disk"]


def test_nothing_is_dropped_where_that_does_not_help(
    lake: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that something else fills does not cost the lake its history; it is said, once."""
    monkeypatch.setattr(Upkeep, "_free_bytes", lambda self: 0)
    upkeep = lakes.upkeep(lake, min_free_disk_bytes=1 << 40)
    with caplog.at_level(logging.WARNING):
        upkeep.make_room()
        upkeep.make_room()
    assert lakes.seen(lake) == list("abcdef")
    assert caplog.text.count("frees too little") == 1
    assert "frees too little" in upkeep.status()["low_disk"]


def test_replaced_files_go_before_any_day(lake: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the readers without a lease are waited for makes room first, and where that is enough no row goes."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 2)
    lakes.upkeep(lake).merge(TRACES)
    replaced = size_bytes(lake) - sum(f.size_bytes for f in files(lake))
    capacity_bytes = size_bytes(lake)
    monkeypatch.setattr(Upkeep, "_free_bytes", lambda self: capacity_bytes - size_bytes(lake))
    lakes.upkeep(lake, min_free_disk_bytes=replaced).make_room()
    assert lakes.seen(lake) == list("abcdef")
    assert len(list(lake.rglob("part-*.parquet"))) == 3


def test_rollups_have_an_age_of_their_own() -> None:
    """Neither size nor room on the disk drops from a table that is not named; age 0 keeps for ever."""
    old = DataFile("Date=2024-10-04/x", 10, 1, "2024-10-04", None, 0)
    new = DataFile("Date=2024-10-05/x", 10, 1, "2024-10-05", None, 0)
    assert days_beyond({"t": [old, new], "hub_rollup": [old]}, ["t"], 5, "2024-10-06") == ["2024-10-04"]
    assert days_beyond({"t": [new], "hub_rollup": [old]}, ["t"], 5, "2024-10-06") == []
    assert past([old], 1e12, 0.0) == []


@pytest.mark.parametrize("elsewhere", ["", "the cold, 100%"])
def test_an_old_day_is_rewritten_once_and_read_with_the_rest(
    lake: Path, lakes: Any, tmp_path: Path, elsewhere: str
) -> None:
    """Days past `cold_after` become one cold file each, beside the rest or in a folder of their own; readers see no
    difference, and the next look finds nothing to do."""
    cold_url = str(tmp_path / elsewhere) if elsewhere else ""
    policy = {"cold_after_s": lakes.DAY_S, "cold_url": cold_url}
    upkeep = lakes.upkeep(lake, at(FIRST + 3.01, lakes), **policy)
    before = connect(lake)
    upkeep.keep()
    assert lakes.seen(lake) == list("abcdef")
    assert [f.day for f in files(lake) if f.is_cold] == ["2024-10-04", "2024-10-05"]
    assert len([f for f in files(lake) if not f.is_cold]) == 2
    where = tmp_path / elsewhere if elsewhere else lake
    assert len(list((where / TRACES).rglob(f"Date=*/{COLD}*.parquet"))) == 2
    version = DeltaTable(f"{lake}/{TRACES}").version()
    upkeep.keep()
    assert DeltaTable(f"{lake}/{TRACES}").version() == version
    assert upkeep.status()["tables"][TRACES]["cold_size_bytes"] > 0
    assert before.execute("SELECT count(*) FROM otel_traces").fetchone() == (6,)  # the snapshot of before the move


def test_what_comes_late_for_a_cold_day_waits_for_its_kind(lake: Path, lakes: Any) -> None:
    """Rows of a cold day are read from where they are, and join the day's cold file when an hour has passed."""
    lakes.upkeep(lake, at(FIRST + 3.01, lakes), cold_after_s=lakes.DAY_S).keep()
    LakeExporter(str(lake), upkeep=False).export(lakes.batch(7, "late", day=FIRST))
    written_s = max(f.written_unix_ms for f in files(lake)) / 1000
    lakes.upkeep(lake, lambda: written_s + 60, cold_after_s=lakes.DAY_S).keep()
    assert len([f for f in files(lake) if f.day == "2024-10-04"]) == 2
    lakes.upkeep(lake, lambda: written_s + 3700, cold_after_s=lakes.DAY_S).keep()
    assert len([f for f in files(lake) if f.day == "2024-10-04"]) == 1
    assert lakes.seen(lake) == [*"abcdef", "late"]


def test_cold_days_leave_with_their_age_from_both_places(lake: Path, lakes: Any, tmp_path: Path) -> None:
    """Retention drops a cold day as any other, and vacuum then removes its file from the cold folder."""
    cold = tmp_path / "cold"
    policy = {"cold_after_s": lakes.DAY_S, "cold_url": f"file://{cold}", "min_free_disk_bytes": 0}
    lakes.upkeep(lake, at(FIRST + 3.01, lakes), **policy).keep()
    assert len(list(cold.rglob("*.parquet"))) == 2
    upkeep = lakes.upkeep(lake, at(FIRST + 4.5, lakes), retention_s=3 * lakes.DAY_S, **policy)
    upkeep.keep()
    for name in (TRACES,):
        upkeep._clean(name, 0.0, now=True)
    assert lakes.seen(lake) == list("cdef")
    assert len(list(cold.rglob("*.parquet"))) == 2  # the second day, and the third which is cold by now


def test_a_merge_leaves_cold_files_alone() -> None:
    """Many cold files of a day are no reason to merge, and none of them goes into one."""
    many = [DataFile(f"Date=2024-10-04/{COLD}{n}", 10, 1, "2024-10-04", None, 0) for n in range(100)]
    assert lake_merge.merges(many) == []


def test_small_cold_files_go_into_the_next_one() -> None:
    """A day whose cold files are small has one of them after the next move, not one a move."""
    small = DataFile(f"Date=2024-10-04/{COLD}1", 10, 1, "2024-10-04", None, 0)
    large = DataFile(f"Date=2024-10-04/{COLD}2", 1 << 30, 1, "2024-10-04", None, 0)
    warm = DataFile("Date=2024-10-04/part-1", 10, 1, "2024-10-04", None, 0)
    assert lake_cold.due([small, large, warm], "2024-10-05", lake_cold.LATE_MS) == [[small, warm]]
    assert lake_cold.due([small, large], "2024-10-05", lake_cold.LATE_MS) == []
    assert lake_cold.due([warm], "2024-10-04", lake_cold.LATE_MS) == []


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("other", ["merges", "cools", "drops"])
def test_two_upkeeps_of_one_lake_replace_a_file_once(
    lake: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch, other: str, looks: bool
) -> None:
    """Of two collectors that want the same files at the same moment one gets them: no row is twice, none comes back,
    and what the other wrote is removed. Also where the slower one has looked at the log meanwhile."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 2)
    slow = DeltaTable(f"{lake}/{TRACES}")
    planned = [f for f in files_of(slow) if f.day == "2024-10-04"]
    now = at(FIRST + 1.5, lakes)
    if other == "merges":
        lakes.upkeep(lake, now).merge(TRACES)
    elif other == "cools":
        lakes.upkeep(lake, now, cold_after_s=0.1 * lakes.DAY_S).keep()
    else:
        lakes.upkeep(lake, now, retention_s=0.1 * lakes.DAY_S).keep()
    if looks:
        slow.update_incremental()
    left = lakes.parquet_files(lake)
    with pytest.raises(CommitFailedError):
        lake_merge.merge(TRACES, slow, Storage(slow.table_uri), planned, threading.Event())
    assert lakes.seen(lake) == list("cdef" if other == "drops" else "abcdef")
    assert lakes.parquet_files(lake) == left


# Ends itself at one step of moving a day, the n-th time it comes to it.
KILLED = """
import os, signal, sys
from deltalake import DeltaTable
from hubscope.exporters import lake_cold, lake_merge, lake_policy, lake_upkeep
from hubscope.exporters.lake_files import Storage
lake, cold, step, now_s = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name, when):
    real = getattr(owner, name)
    def wrapped(*args, **named):
        if when == "before":
            die()
        found = real(*args, **named)
        if when == "after":
            die()
        return found
    setattr(owner, name, wrapped)

def half_written(name, table, storage, files, stopping, real=lake_cold.row_groups):
    yield next(iter(real(name, table, storage, files, stopping)))
    die()

what, when = step.split()
if what == "write" and when == "within":
    lake_cold.row_groups = half_written
else:
    owner = {"write": lake_cold, "commit": DeltaTable, "sync": Storage, "update": DeltaTable}[what]
    name = {"write": "write_file", "commit": "create_write_transaction", "sync": "sync_commits",
            "update": "update_incremental"}[what]
    around(owner, name, when)
upkeep = lake_upkeep.Upkeep(lake, {}, None, lambda: now_s)
upkeep._policy = lake_policy.LakePolicy(cold_after_s=86400.0, cold_url=cold, min_free_disk_bytes=0)
upkeep.keep()
"""
STEPS = ("write before", "write within", "write after", "commit before", "commit after", "sync before", "sync after")


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_move_that_is_killed_shows_every_row_once(
    lake: Path, lakes: Any, tmp_path: Path, step: str, elsewhere: bool
) -> None:
    """Killed at any step of moving a day, a reader sees each row once; the next upkeep ends it, with nothing over."""
    cold = tmp_path / "cold"
    cold_url = str(cold) if elsewhere else ""
    command = [sys.executable, "-c", KILLED, str(lake), cold_url, step, str((FIRST + 3.01) * lakes.DAY_S)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert lakes.seen(lake) == list("abcdef")
    upkeep = lakes.upkeep(lake, at(FIRST + 3.01, lakes), cold_after_s=lakes.DAY_S, cold_url=cold_url)
    upkeep.keep()
    assert lakes.seen(lake) == list("abcdef")
    assert [f.day for f in files(lake) if f.is_cold] == ["2024-10-04", "2024-10-05"]
    days_ago_s = 3 * lakes.DAY_S
    for path in [*lake.rglob("*.parquet"), *cold.rglob("*.parquet")]:
        stat = path.stat()
        os.utime(path, (stat.st_atime - days_ago_s, stat.st_mtime - days_ago_s))
    for _ in range(2):
        upkeep._clean(TRACES, 0.0, now=True)
    assert len(lakes.parquet_files(lake) | lakes.parquet_files(cold)) == len(files(lake)) == 4


def test_lakes_that_share_a_cold_folder_leave_each_other_alone(tmp_path: Path, lakes: Any) -> None:
    """Two lakes with one `cold_url` keep their cold days, also after vacuum has looked for orphans there twice, and
    also those that an older version put beside each other; a lake that was moved keeps its folder."""
    cold = tmp_path / "cold"
    policy = {"cold_after_s": lakes.DAY_S, "cold_url": str(cold)}
    now = at(FIRST + 3.01, lakes)
    for name in ("one", "two"):
        for segment, day in ((1, FIRST), (2, FIRST + 1)):
            LakeExporter(str(tmp_path / name), upkeep=False).export(lakes.batch(segment, f"{name}{segment}", day=day))
            if segment == 1:  # as it was cooled before a table's id stood in the path
                table = DeltaTable(f"{tmp_path}/{name}/{TRACES}")
                base = f"file://{cold}/{TRACES}"
                lake_cold.move(TRACES, table, Storage(table.table_uri), files_of(table), base, threading.Event())
        lakes.upkeep(tmp_path / name, now, **policy).keep()
    (tmp_path / "two").rename(tmp_path / "moved")
    for path in cold.rglob("*.parquet"):
        os.utime(path, (0, FIRST * lakes.DAY_S))
    for name in ("one", "moved"):
        upkeep = lakes.upkeep(tmp_path / name, now, **policy)
        for _ in range(2):
            upkeep._clean(TRACES, 0.0, now=True)
    assert lakes.seen(tmp_path / "one") == ["one1", "one2"]
    assert lakes.seen(tmp_path / "moved") == ["two1", "two2"]
    assert len(lakes.parquet_files(cold)) == 4


def test_one_span_of_the_far_future_does_not_make_today_old(lake: Path, lakes: Any) -> None:
    """A file whose day has not come, or is that of no time, is of the day it was written: it neither takes the place
    of the newest day, nor stays for ever, nor goes at once."""
    today = "2024-10-06"
    written_ms = int((FIRST + 2) * lakes.DAY_S * 1000)
    yesterday, now, future, none = (
        DataFile(f"Date={day}/x", 10, 1, day, None, written_ms)
        for day in ("2024-10-05", today, "2099-01-01", "1970-01-01")
    )
    assert days_beyond({"t": [yesterday, now, future, none]}, ["t"], 1, today) == ["2024-10-05"]
    assert past([none, future], (FIRST + 3.9) * lakes.DAY_S, lakes.DAY_S) == []
    assert past([none, future], (FIRST + 4.1) * lakes.DAY_S, lakes.DAY_S) == [none, future]
    LakeExporter(str(lake), upkeep=False).export(lakes.batch(7, "future", day=47_000))
    lakes.upkeep(lake, at(FIRST + 3, lakes), max_size_bytes=1).keep()
    assert lakes.seen(lake) == ["future"]  # of the day it was written, which is after all others here


def test_a_clock_that_jumps_drops_nothing(lake: Path, lakes: Any, caplog: pytest.LogCaptureFixture) -> None:
    """400 days ahead nothing is dropped by age, from the first look on or later, unless the clock stays so for a day;
    a weekend's sleep is no jump. It is said once."""
    clock = {"wall": 0.0, "monotonic": 0.0}
    newest_s = max(file.written_unix_ms for file in files(lake)) / 1000
    upkeep = lakes.upkeep(lake, lambda: clock["wall"], retention_s=10_000 * lakes.DAY_S)
    upkeep._trusted_clock = TrustedClock(lambda: clock["wall"], lambda: clock["monotonic"])
    for wall_days, monotonic_s in ((10_000, 0.0), (1, 60.0), (3.9, 120.0), (10_000, 180.0), (10_000, 80_000.0)):
        clock.update(wall=newest_s + wall_days * lakes.DAY_S, monotonic=monotonic_s)
        upkeep.keep()
        assert lakes.seen(lake) == list("abcdef")
    assert caplog.text.count("no day is dropped by age") == 2
    clock["monotonic"] = 180.0 + lakes.DAY_S
    upkeep.keep()
    assert lakes.seen(lake) == []


def test_rows_without_a_time_are_filed_where_they_were_received(tmp_path: Path, lakes: Any) -> None:
    """A row that has no time keeps its time 0 and gets the day it came as its `Date`, so a retention keeps it."""
    batch = Batch(
        1, (FIRST + 2) * lakes.DAY_NS, {TRACES: pa.concat_tables([lakes.rows("none", day=0), lakes.rows("a")])}
    )
    LakeExporter(str(tmp_path), upkeep=False).export(batch)
    assert sorted(file.day for file in files(tmp_path)) == ["2024-10-04", "2024-10-06"]
    found = connect(tmp_path).execute("SELECT TimestampUnixNano FROM otel_traces WHERE SpanName = 'none'").fetchall()
    assert found == [(1,)]
    lakes.upkeep(tmp_path, at(FIRST + 4, lakes), retention_s=3 * lakes.DAY_S).keep()
    assert lakes.seen(tmp_path) == ["none"]


def test_an_upkeep_that_fails_unexpectedly_lives_on(
    lake: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a step raises is said once and stands in the status; the rest goes on, and it is tried again."""

    def broken(self: Upkeep) -> None:
        raise ValueError("year -164 is out of range")

    upkeep = lakes.upkeep(lake, at(FIRST + 3.01, lakes), retention_s=2 * lakes.DAY_S)
    with monkeypatch.context() as patch:
        patch.setattr(Upkeep, "_retain", broken)
        upkeep.keep()
        upkeep.keep()
    assert caplog.text.count("the lake's upkeep (retention) fails: ValueError: year -164") == 1
    assert "year -164" in upkeep.status()["failing"]
    assert upkeep.status()["tables"]
    upkeep.keep()
    assert lakes.seen(lake) == list("cdef")
    assert upkeep.status()["failing"] == ""

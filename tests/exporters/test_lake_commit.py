"""Commits that are written without delta-rs: read by it as its own, and in turns with its own."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.schema import PrimitiveType

from hubscope.exporters import lake_commit
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import TRACES


def log_of(lake: Path) -> Path:
    return lake / TRACES / "_delta_log"


def actions(commit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in commit.read_text().splitlines()]


def test_it_says_what_delta_rs_would_say(tmp_path: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file and transaction, committed both ways, are the same actions but for times and who committed."""
    kept: list[Any] = []
    append = lake_commit.append
    monkeypatch.setattr(lake_commit, "append", lambda *given: kept.append(given) or append(*given))
    LakeExporter(str(tmp_path), upkeep=False).export(lakes.batch(7, "a"))
    ((_, _, added, *_),) = kept
    table = DeltaTable(f"{tmp_path}/{TRACES}")
    properties = CommitProperties(app_transactions=[Transaction("another", 7)])
    table.create_write_transaction(added, "append", table.schema(), ["Date"], commit_properties=properties)
    ours, theirs = actions(log_of(tmp_path) / f"{1:020d}.json"), actions(log_of(tmp_path) / f"{2:020d}.json")
    for action in ours, theirs:
        action[0]["commitInfo"] = {key: action[0]["commitInfo"][key] for key in ("operation", "operationParameters")}
        action[-1]["txn"].pop("appId")
    theirs[1]["add"] = {key: value for key, value in theirs[1]["add"].items() if value is not None}
    assert ours == theirs


def test_writers_in_turns_lose_nothing(tmp_path: Path, lakes: Any) -> None:
    """Three collectors and a merge, whose commits are delta-rs', commit at once: each of 60 segments is there once."""
    exporters = [LakeExporter(str(tmp_path), f"writer {number}", upkeep=False) for number in range(3)]
    failures: list[BaseException] = []
    is_over = threading.Event()

    def write(exporter: LakeExporter, name: str) -> None:
        try:
            for segment in range(1, 21):
                exporter.export(lakes.batch(segment, f"{name}{segment:02d}"))
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    def merge() -> None:
        upkeep = lakes.upkeep(tmp_path)
        while not is_over.is_set():
            upkeep._guarded("merge", lambda: upkeep.merge(TRACES))

    threads = [threading.Thread(target=write, args=(e, n)) for e, n in zip(exporters, "abc", strict=True)]
    merging = threading.Thread(target=merge)
    for thread in (*threads, merging):
        thread.start()
    for thread in threads:
        thread.join(120)
    is_over.set()
    merging.join(60)
    assert not failures
    assert lakes.seen(tmp_path) == sorted(f"{name}{segment:02d}" for name in "abc" for segment in range(1, 21))
    assert [LakeExporter(str(tmp_path), f"writer {n}", upkeep=False).version(TRACES) for n in range(3)] == [20] * 3


def test_a_checkpoint_is_made_every_twenty_commits(tmp_path: Path, lakes: Any) -> None:
    """Whoever opens the table reads the newest checkpoint and at most 19 commits after it."""
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    for segment in range(1, 46):
        exporter.export(lakes.batch(segment, "a"))
    assert lake_commit.last_checkpoint(log_of(tmp_path)) == 39
    assert DeltaTable(f"{tmp_path}/{TRACES}").version() == 45
    assert len(lakes.seen(tmp_path)) == 45


def test_a_writer_that_stood_still_commits_nothing_in_the_past(tmp_path: Path, lakes: Any) -> None:
    """Where the numbers after its last commit are free again, for the log was cleaned, its rows are seen too."""
    still, other = (
        LakeExporter(str(tmp_path), "still", upkeep=False),
        LakeExporter(str(tmp_path), "other", upkeep=False),
    )
    still.export(lakes.batch(1, "still 1"))
    for segment in range(1, 25):
        other.export(lakes.batch(segment, f"other {segment:02d}"))
    for number in range(19):
        (log_of(tmp_path) / f"{number:020d}.json").unlink()
    still.export(lakes.batch(2, "still 2"))
    assert lakes.seen(tmp_path) == [*(f"other {n:02d}" for n in range(1, 25)), "still 1", "still 2"]


@pytest.mark.parametrize("has_commit", [True, False])
def test_a_checkpoint_made_at_that_moment_is_looked_into(
    tmp_path: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch, has_commit: bool
) -> None:
    """A checkpoint of our number, made while we commit, may have the commit or not: the rows are there once."""
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    exporter.export(lakes.batch(1, "a"))
    name = lake_commit._name

    def named(unfinished: Path, commit: Path) -> None:
        monkeypatch.setattr(lake_commit, "_name", name)
        if has_commit:
            name(unfinished, commit)
            DeltaTable(f"{tmp_path}/{TRACES}").create_checkpoint()
            return
        other = LakeExporter(str(tmp_path), "other", upkeep=False)
        other.export(lakes.batch(1, "other"))
        DeltaTable(f"{tmp_path}/{TRACES}").create_checkpoint()
        commit.unlink()  # the log's clean-up
        name(unfinished, commit)

    monkeypatch.setattr(lake_commit, "_name", named)
    exporter.export(lakes.batch(2, "b"))
    assert lakes.seen(tmp_path) == (["a", "b"] if has_commit else ["a", "b", "other"])
    assert DeltaTable(f"{tmp_path}/{TRACES}").transaction_version(exporter.application) == 2


def test_a_table_that_another_hubscope_changes_is_read_anew(tmp_path: Path, lakes: Any) -> None:
    """A column that is added between two commits is no obstacle, and stays."""
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    exporter.export(lakes.batch(1, "a"))
    DeltaTable(f"{tmp_path}/{TRACES}").alter.add_columns([Field("OfTheFuture", PrimitiveType("string"))])
    exporter.export(lakes.batch(2, "b"))
    assert lakes.seen(tmp_path) == ["a", "b"]
    assert "OfTheFuture" in {field.name for field in DeltaTable(f"{tmp_path}/{TRACES}").schema().fields}


@pytest.mark.skipif(os.name == "nt", reason="a commit there has one name")
def test_what_a_killed_writer_left_harms_no_commit(tmp_path: Path, lakes: Any) -> None:
    """Killed between the commit and the end of its first name: the commit stays, and the name goes after an hour."""
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    exporter.export(lakes.batch(1, "a"))
    log = log_of(tmp_path)
    left = log / exporter._temporary
    os.link(log / f"{1:020d}.json", left)
    exporter.export(lakes.batch(2, "b"))
    assert lakes.seen(tmp_path) == ["a", "b"]
    left = log / lake_commit.temporary_name()
    os.link(log / f"{1:020d}.json", left)
    LakeExporter(str(tmp_path), upkeep=False)
    assert left.exists()
    os.utime(left, (0, 0))
    LakeExporter(str(tmp_path), upkeep=False)
    assert not left.exists()
    assert lakes.seen(tmp_path) == ["a", "b"]


def test_where_files_have_one_name_delta_rs_commits(
    tmp_path: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without links (FAT, some network shares) every row is there all the same, once."""
    exporter = LakeExporter(str(tmp_path), upkeep=False)
    exporter.export(lakes.batch(1, "a"))

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    exporter.export(lakes.batch(2, "b"))
    monkeypatch.undo()
    exporter.export(lakes.batch(3, "c"))
    assert lakes.seen(tmp_path) == ["a", "b", "c"]


def test_a_segment_that_came_in_meanwhile_is_not_put_in_again(tmp_path: Path, lakes: Any) -> None:
    """Where another process with the same name has written the segment since the table was asked."""
    exporter = LakeExporter(str(tmp_path), "shared", upkeep=False)
    exporter.export(lakes.batch(1, "a"))
    LakeExporter(str(tmp_path), "shared", upkeep=False).export(lakes.batch(2, "b"))
    exporter.export(lakes.batch(2, "b"))
    assert lakes.seen(tmp_path) == ["a", "b"]

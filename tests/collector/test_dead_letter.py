"""Dead letters: kept with their reason, each once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubscope.collector.log import dead_letter
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.wal import Record, Signal
from hubscope.errors import LakeError


def test_a_record_is_kept_with_its_reason(tmp_path: Path) -> None:
    """The payload stands beside a JSON file that says why, and where in the log it was."""
    path = dead_letter.set_aside(tmp_path, 7, 3, Record(Signal.LOGS, b"payload", 5), "it failed")
    assert path.name == "0000000000000007-000003.logs.otlp"
    assert path.read_bytes() == b"payload"
    said = json.loads(path.with_suffix(".otlp.json").read_text())
    assert (said["reason"], said["segment"], said["record"]) == ("it failed", 7, 3)
    assert (said["received_unix_nano"], said["payload"]) == (5, path.name)


def test_the_same_record_twice_is_one_letter(tmp_path: Path) -> None:
    """A replay after a crash sets the same record aside again: still one."""
    for _ in range(2):
        dead_letter.set_aside(tmp_path, 7, 3, Record(Signal.LOGS, b"payload", 5), "it failed")
    dead_letter.set_aside(tmp_path, 7, 4, Record(Signal.TRACES, b"other", 5), "it failed")
    assert dead_letter.count(tmp_path) == 2


def test_no_letters_are_none(tmp_path: Path) -> None:
    """A state folder without dead letters counts none, and none is made by counting."""
    assert dead_letter.count(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_cursor_is_found_again(tmp_path: Path) -> None:
    """A cursor starts at 0 without a file and reads what was last noted, whatever the exporter is called."""
    cursor = Cursor(tmp_path, "otlp-host/4317")
    assert (cursor.segment, cursor.exists) == (0, False)
    cursor.advance(12)
    again = Cursor(tmp_path, "otlp-host/4317")
    assert (again.segment, again.exists) == (12, True)


def test_a_cursor_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A damaged cursor file is an error with its path and what to do, not a guess."""
    Cursor(tmp_path, "lake").path.write_text("twelve")
    with pytest.raises(LakeError, match="cursors"):
        Cursor(tmp_path, "lake")

"""A damaged Delta log: named with its file and the remedy by all that reads or writes the lake, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubscope.errors import LakeError, RetryableError
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_log import REMEDY, check_log
from hubscope.lake_schema import TRACES

Damage = Callable[[Path], str]


def _cut(log: Path) -> str:
    path = max(log.glob("*.json"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return f"{path} is damaged in line 2: it was cut off after {path.stat().st_size} B"


def _emptied(log: Path) -> str:
    path = max(log.glob("*.json"))
    path.write_bytes(b"")
    return f"{path} is empty"


def _missing(log: Path) -> str:
    path = sorted(log.glob("*.json"))[2]
    path.unlink()
    return f"{path} is missing, and later ones are there"


def _first_missing(log: Path) -> str:
    path = min(log.glob("*.json"))
    path.unlink()
    return f"{path} is missing, and later ones are there"


def _all_missing(log: Path) -> str:
    for path in log.glob("*.json"):
        path.unlink()
    return f"{log} is empty, though there are rows beside it"


DAMAGES = [_cut, _emptied, _missing, _first_missing, _all_missing]


def filled(lakes: Any, folder: Path, segments: int = 4) -> Path:
    """A lake of that many commits with a span each."""
    exporter = LakeExporter(str(folder), upkeep=False)
    for segment in range(1, segments + 1):
        exporter.export(lakes.batch(segment, f"s{segment}"))
    exporter.close()
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_log_is_named(damage: Damage, lakes: Any, tmp_path: Path) -> None:
    """The file, what is wrong with it, and the remedy; neither rows that are silently gone nor words of a library."""
    lake = filled(lakes, tmp_path / "lake")
    said = damage(lake / TRACES / "_delta_log")
    for look in (lambda: check_log(str(lake), TRACES), lambda: lakes.seen(lake), lambda: LakeExporter(str(lake))):
        with pytest.raises(LakeError) as raised:
            look()
        assert said in raised.value.message
        assert raised.value.remedy == REMEDY


def test_a_whole_log_is_none_of_its_business(lakes: Any, tmp_path: Path) -> None:
    """A log with checkpoints, one whose commits before the checkpoint were cleaned, a table that is not there yet."""
    lake = filled(lakes, tmp_path / "lake", 45)
    log = lake / TRACES / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    check_log(str(lake), TRACES)
    for path in sorted(log.glob("*.json"))[:30]:
        path.unlink()
    check_log(str(lake), TRACES)
    assert len(lakes.seen(lake)) == 45
    check_log(str(tmp_path / "nothing"), TRACES)


def test_a_cut_checkpoint_is_named(lakes: Any, tmp_path: Path) -> None:
    """The newest checkpoint is what a reader needs besides the commits after it."""
    lake = filled(lakes, tmp_path / "lake", 21)
    checkpoint = max((lake / TRACES / "_delta_log").glob("*.checkpoint.parquet"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(LakeError, match="was cut off"):
        check_log(str(lake), TRACES)


def test_an_exporter_that_runs_waits_for_the_repair(lakes: Any, tmp_path: Path) -> None:
    """A table that must be read anew and cannot is a reason to wait, never one to give rows up."""
    lake = filled(lakes, tmp_path / "lake")
    exporter = LakeExporter(str(lake), upkeep=False)
    whole = {path: path.read_bytes() for path in (lake / TRACES / "_delta_log").glob("*.json")}
    _emptied(lake / TRACES / "_delta_log")
    exporter._tables.clear()  # as after any error
    exporter._versions.clear()
    with pytest.raises(RetryableError, match="is empty"):
        exporter.export(lakes.batch(5, "s5"))
    for path, content in whole.items():
        path.write_bytes(content)
    exporter.export(lakes.batch(5, "s5"))
    assert lakes.seen(lake) == [f"s{number}" for number in range(1, 6)]


@pytest.mark.parametrize("damage", [_cut, _emptied, _missing])
def test_every_command_says_it_once(damage: Damage, lakes: Any, tmp_path: Path) -> None:
    """Exit code 4, one message with the remedy, no backtrace even where Rust is told to print them; the collector
    starts nothing, and leaves the log of what it has accepted as it is."""
    lake = filled(lakes, tmp_path / "lake")
    said = damage(lake / TRACES / "_delta_log")
    waiting = lake / ".state" / "wal" / f"{1:016d}.wal"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"accepted")
    file = tmp_path / "x.json"
    file.write_text('{"resourceSpans": []}\n')
    free = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--telemetry", "127.0.0.1:0")
    commands = (("import", str(file)), ("collect", *free), ("report",), ("trace", "ab"), ("status",))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    for command, *rest in commands:
        done = subprocess.run(
            [sys.executable, "-m", "hubscope.console", command, "--lake", str(lake), *rest],
            env={**environment, "RUST_BACKTRACE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 4, (command, done.stderr)
        assert done.stderr.count("error:") == 1, done.stderr
        assert said in done.stderr
        assert REMEDY in done.stderr
        assert not any(word in done.stderr for word in ("Traceback", "panicked", "<unknown>", "0: "))
    assert waiting.read_bytes() == b"accepted"

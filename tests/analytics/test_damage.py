"""A file of the lake that was cut off, emptied or written over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from hubscope.analytics import report
from hubscope.analytics.connect import connect
from hubscope.analytics.fetch import fetch
from hubscope.console.main import main
from hubscope.errors import LakeError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "overwritten in the middle": lambda whole: whole[:4] + b"\xa5" * (len(whole) // 2) + whole[4 + len(whole) // 2 :],
}


def damaged(lake: Any, damage: Callable[[bytes], bytes]) -> tuple[Path, Path]:
    run = lake.run("1")
    for number in range(200):
        run.trace(lake.span(f"GET /{number}", 20 + number % 7, kind="Server"))
    path = lake.write()
    file = next((path / "otel_traces").glob("Date=*/*.parquet"))
    file.write_bytes(damage(file.read_bytes()))
    return path, file


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_with_its_remedy(damage: Callable[[bytes], bytes], lake: Any) -> None:
    """By the report of a notebook and by every command that reads: exit code 4, and nothing of a bug."""
    path, file = damaged(lake, damage)
    with pytest.raises(LakeError, match="restore it from a backup") as raised:
        report(path)
    assert str(file) in str(raised.value)
    for command in (["report"], ["status"], ["sql", "runs"]):
        answer = CliRunner().invoke(main, [*command, "--lake", str(path)])
        assert (answer.exit_code, str(file) in answer.output, "bug" in answer.output) == (4, True, False), command


def test_doctor_finds_a_damaged_file(lake: Any) -> None:
    """A file that was cut off is one of the things wrong with a set-up."""
    path, file = damaged(lake, DAMAGES["cut off"])
    answer = CliRunner().invoke(main, ["doctor", "--lake", str(path)])
    assert answer.exit_code == 1
    assert f"{file} has" in answer.output


def test_a_wrong_query_blames_no_file(lake: Any) -> None:
    """DuckDB's own error comes out where every file can be read."""
    lake.run("1").trace(lake.span("GET /", 20))
    with pytest.raises(duckdb.Error, match="format"):
        fetch(connect(lake.write()), "SELECT strptime(SpanName, '%q') FROM otel_traces")

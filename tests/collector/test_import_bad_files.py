"""`hubscope import` of what is no telemetry, or not all of it: one message that names the place and the remedy."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.imports.import_formats import requests_in
from hubscope.console.main import main

AGAIN = "→ import it again when it is whole"


def line(number: int) -> bytes:
    """A JSON line of one span."""
    identity = f"{number + 1:016x}"
    span = {"name": f"s{number}", "traceId": identity * 2, "spanId": identity, "startTimeUnixNano": str(10**18)}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode() + b"\n"


LINES = b"".join(line(number) for number in range(400))
PACKED = gzip.compress(LINES, 1, mtime=0)
DOCUMENT = json.dumps(json.loads(line(0)), indent=1).encode()


def imported(tmp_path: Path, content: bytes, name: str = "x.json") -> Result:
    """What the import says of a file with that content; without a traceback or a bug."""
    (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(main, ["import", "--lake", str(tmp_path / "lake"), str(tmp_path / name)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "that is a bug" not in result.stderr
    return result


@pytest.mark.parametrize(
    ("content", "place", "remedy"),
    [
        (line(0)[:100], ":1: the JSON was cut off: it ends at byte 100", AGAIN),
        (DOCUMENT[:100], ":8: the JSON was cut off: it ends at byte 100", AGAIN),
        (DOCUMENT.replace(b'"spans": [', b'"spans":'), ":13: column 6: not JSON", "→ mend it there"),
        (b"", ": the file is empty", AGAIN[2:]),
        (b" \n\n", ": there is nothing in it but white space", "→ hubscope import reads OTLP JSON"),
        (b"time,name\n1,a\n", ":1: this is no JSON: it begins with 'time,name'", "→ hubscope import reads"),
        (random.Random(1).randbytes(5000), ": byte 0: this is neither JSON nor an OTLP request", "→ hubscope import"),
        ("{}".encode("utf-16"), ": byte 0: the text is UTF-16, and JSON is UTF-8", "→ convert it: iconv"),
        (PACKED[:15], "its gzip data were cut off: the file ends at byte 15", "→ decompressing it"),
        (zstandard.compress(LINES)[:40], "its zstd data hold nothing, or were cut off: the file ends at byte 40", "→"),
        (bytes(range(256)) * 50, ": byte 0: this is neither JSON nor an OTLP request", "→ hubscope import reads"),
        ((9).to_bytes(4, "big") + b"\x0a\x07abc", ":message 1: was cut off after 5 of 9 B", AGAIN),
    ],
)
def test_a_file_that_is_nothing_whole_has_one_message(content: bytes, place: str, remedy: str, tmp_path: Path) -> None:
    """One rejection, where it stood, what to do, and exit code 4."""
    result = imported(tmp_path, content)
    assert result.exit_code == 4
    assert "0 accepted, 1 rejected" in result.stdout
    assert f"{tmp_path / 'x.json'}" in result.stderr
    assert place in result.stderr
    assert remedy in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_what_stands_before_a_cut_is_taken(tmp_path: Path) -> None:
    """The last line's cut is told with the byte, a compressed file's with its own; all whole lines are in the lake."""
    cut = imported(tmp_path, line(0) + line(1)[:50], "cut.json")
    assert cut.exit_code == 0
    assert f"cut.json:2: the last line was cut off: it ends at byte {len(line(0)) + 50}" in cut.stderr
    half = imported(tmp_path, PACKED[: len(PACKED) // 2], "half.json.gz")
    assert half.exit_code == 0
    assert "1 rejected" in half.stdout
    assert f"its gzip data were cut off: the file ends at byte {len(PACKED) // 2}" in half.stderr
    accepted = int(half.stdout.split(": ")[1].split()[0])
    assert 100 < accepted < 300


def test_a_bare_protobuf_request_is_taken(tmp_path: Path) -> None:
    """A request as it travels is the only one in its file; nothing has to be said of its length."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="a", trace_id=b"t" * 16, span_id=b"s" * 8)
    result = imported(tmp_path, request.SerializeToString(), "request.pb")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'request.pb'}: 1 accepted, 0 rejected\n")


def test_a_folder_and_a_missing_file_do_not_stop_the_others(tmp_path: Path) -> None:
    """Each is one error with its remedy, the file after them is imported, and the exit code is 4."""
    good, gone = tmp_path / "good.json", tmp_path / "gone.json"
    good.write_bytes(line(0))
    paths = [str(tmp_path), str(gone), str(good)]
    result = CliRunner().invoke(main, ["import", "--lake", str(tmp_path / "lake"), *paths])
    assert result.exit_code == 4
    assert f"{tmp_path}: is a folder\n  name the files in it: hubscope import {tmp_path}/*.json" in result.stderr
    assert f"{gone}: No such file or directory\n  is the path right?" in result.stderr
    assert f"{good}: 1 accepted, 0 rejected" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_without_read_permission_is_named(tmp_path: Path) -> None:
    """It is told from one that is not there; root, who may read everything, asks as nobody."""
    file = tmp_path / "secret.json"
    file.write_bytes(line(0))
    file.chmod(0)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom hubscope.collector.imports import import_files\n"
        "from hubscope.errors import BadInputError\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: import_files._size_of_readable(Path(sys.argv[1]), 'secret.json')\n"
        "except BadInputError as error: print(error)"
    )
    parents = [parent for parent in file.parents if parent.stat().st_uid == os.getuid() and str(parent) != "/"]
    before = {parent: parent.stat().st_mode for parent in parents}
    try:
        for parent in parents:
            parent.chmod(before[parent] | 0o055)
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60)
    finally:
        for parent in parents:
            parent.chmod(before[parent])
    assert done.stdout.startswith("secret.json: Permission denied\n  you may not read it"), done.stderr


@settings(deadline=None, max_examples=60)
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.integers(0, len(LINES)).map(lambda end: LINES[:end][-3000:]),
        st.integers(0, 400).map(lambda end: PACKED[:end]),
        st.integers(0, 400).map(lambda end: zstandard.compress(LINES)[:end]),
        st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=3)).map(
            lambda at: DOCUMENT[: at[0]] + at[1] + DOCUMENT[at[0] :]
        ),
    )
)
def test_any_bytes_are_taken_or_told_of(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a file holds, reading it raises nothing; it gives requests, or a reason that is not empty."""
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(content)
    found = list(requests_in(path))
    assert found
    assert all(one.requests or one.problem or one.source for one in found)

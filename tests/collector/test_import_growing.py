"""`hubscope import` of files that grow: what was imported before adds nothing, the rest comes in, once."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.imports import chunks, import_files
from hubscope.console.main import main
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import GAUGE, LOGS, TRACES
from hubscope.processors.rules_file import load

START_NS = 1_700_000_000_000_000_000


def spans(number: int) -> ExportTraceServiceRequest:
    """A request of one root operation, which the shipped rules make KPI points of."""
    request = ExportTraceServiceRequest()
    above = request.resource_spans.add()
    above.resource.attributes.add(key="service.name").value.string_value = "hub"
    identity = (number + 1).to_bytes(8, "big")
    above.scope_spans.add().spans.add(
        name=f"s{number}",
        trace_id=identity * 2,
        span_id=identity,
        kind=2,
        start_time_unix_nano=START_NS + number,
        end_time_unix_nano=START_NS + number + 10**7,
    )
    return request


def logs(number: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=START_NS + number)
    record.body.string_value = f"b{number}"
    return request


def line(number: int) -> bytes:
    """A JSON line of one span, and every third one of a log record too."""
    identity = f"{number + 1:016x}"
    end = {"startTimeUnixNano": str(START_NS + number), "endTimeUnixNano": str(START_NS + number + 10**7)}
    span = {"name": f"s{number}", "traceId": identity * 2, "spanId": identity, "kind": 2, **end}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "hub"}}]}
    document: dict[str, Any] = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    if number % 3 == 0:
        record = {"body": {"stringValue": f"b{number}"}, "timeUnixNano": str(START_NS + number)}
        document["resourceLogs"] = [{"scopeLogs": [{"logRecords": [record]}]}]
    return json.dumps(document).encode() + b"\n"


def run(lake: Path, *files: Path) -> str:
    """The import's stdout; it must end with 0 or with 4, and without a traceback."""
    done = CliRunner().invoke(main, ["import", "--lake", str(lake), *map(str, files)])
    assert done.exit_code in (0, 4), done.output
    assert "Traceback" not in done.output
    return str(done.stdout)


def stored(lake: Path, table: str = TRACES, column: str = "SpanName") -> list[str]:
    path = f"{lake}/{table}"
    if not os.path.isdir(path):
        return []
    return sorted(DeltaTable(path).to_pyarrow_table(columns=[column])[column].to_pylist())


def rows_of_every_table(lake: Path) -> dict[str, int]:
    return {path.name: DeltaTable(path).count() for path in sorted(lake.iterdir()) if (path / "_delta_log").is_dir()}


def assert_no_kpi_twice(lake: Path) -> None:
    """Each batch gives one value of a KPI, at the time of its last sample."""
    values = DeltaTable(f"{lake}/{GAUGE}").to_pyarrow_table(columns=["TimeUnixNano", "Attributes"]).to_pylist()
    assert len(values) == len({json.dumps([value["TimeUnixNano"], sorted(value["Attributes"])]) for value in values})


def expected(numbers: range) -> list[str]:
    return sorted(f"s{number}" for number in numbers)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_a_half_written_line_counts_when_it_is_whole(tmp_path: Path, lake: Path) -> None:
    """A file imported in the middle of a line, and again when it has grown: every row is there once, also the KPIs'."""
    whole = b"".join(line(number) for number in range(5))
    file, other = tmp_path / "growing.json", tmp_path / "reference"
    file.write_bytes(whole[: len(whole) - len(line(4)) // 2])
    assert "6 accepted, 1 rejected" in run(lake, file)
    before = rows_of_every_table(lake)
    file.write_bytes(whole)
    assert "7 accepted, 6 in the lake already, 0 rejected" in run(lake, file)
    assert stored(lake) == expected(range(5))
    assert stored(lake, LOGS, "Body") == ["b0", "b3"]
    after = rows_of_every_table(lake)
    assert "all of them in the lake already" in run(lake, file)
    assert rows_of_every_table(lake) == after
    file.write_bytes(line(4))
    run(other, file)
    assert after[GAUGE] - before[GAUGE] == rows_of_every_table(other)[GAUGE] > 0


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["gzip", "zstd", "messages", "compressed messages"])
def test_other_forms_may_grow_too(tmp_path: Path, lake: Path, kind: str, cut: float) -> None:
    """A compressed file, and the length-prefixed form: cut off anywhere and imported, then imported whole."""
    requests = [spans(n) if n % 3 else logs(n) for n in range(12)]
    if kind in ("gzip", "zstd"):
        compress = gzip.compress if kind == "gzip" else zstandard.ZstdCompressor().compress
        data = b"".join(compress(b"".join(line(n) for n in range(first, first + 3))) for first in range(0, 12, 3))
        names, bodies = expected(range(12)), ["b0", "b3", "b6", "b9"]
    else:
        compress = zstandard.ZstdCompressor().compress if kind == "compressed messages" else bytes
        messages = [compress(request.SerializeToString()) for request in requests]
        data = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
        names, bodies = sorted(f"s{n}" for n in range(12) if n % 3), ["b0", "b3", "b6", "b9"]
    file = tmp_path / "growing"
    for part in (data[: round(len(data) * cut)], data, data):
        file.write_bytes(part)
        run(lake, file)
    assert stored(lake) == names
    assert stored(lake, LOGS, "Body") == bodies


def test_the_same_requests_compressed_are_the_same(tmp_path: Path, lake: Path) -> None:
    """A log that is compressed when it is rotated adds only what was written since."""
    plain, rotated = tmp_path / "traces.json", tmp_path / "traces-1.json.gz"
    plain.write_bytes(line(0) + line(1))
    rotated.write_bytes(gzip.compress(line(0) + line(1) + line(2)))
    run(lake, plain)
    assert "in the lake already" in run(lake, rotated)
    assert stored(lake) == expected(range(3))


def test_two_files_that_begin_alike_share_their_spans(tmp_path: Path, lake: Path) -> None:
    """What two files have in common is no reason to leave anything else of either out; a span of both is there once."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_bytes(line(0) + line(1) + line(2))
    two.write_bytes(line(0) + line(1) + line(3) + line(4))
    run(lake, one, two)
    assert stored(lake) == expected(range(5))
    for file, added in ((one, 5), (two, 6)):
        file.write_bytes(file.read_bytes() + line(added))
    run(lake, one, two)
    run(lake, two, one)
    assert stored(lake) == expected(range(7))


def test_bad_lines_do_not_hide_where_an_import_ended(tmp_path: Path, lake: Path) -> None:
    """Lines that cannot be taken, at the beginning, at the end and between, change nothing."""
    file = tmp_path / "growing.json"
    for part in (b"no\n", b"no\n" + line(0) + b"no\n", b"no\n" + line(0) + b"no\n" + line(1) + b"{}\n" + line(2)):
        file.write_bytes(part)
        run(lake, file)
    assert stored(lake) == expected(range(3))


def test_an_older_copy_costs_no_more_than_itself(tmp_path: Path, lake: Path) -> None:
    """A shorter copy that is imported after the file itself is another file; the file grows on as before."""
    file, older = tmp_path / "growing.json", tmp_path / "older.json"
    file.write_bytes(line(0) + line(1) + line(2))
    older.write_bytes(line(0))
    run(lake, file, older)
    file.write_bytes(file.read_bytes() + line(3))
    run(lake, file)
    assert stored(lake) == expected(range(4))


def test_the_state_folder_is_not_needed(tmp_path: Path, lake: Path) -> None:
    """What is known of a file stands in the lake's tables: they can be moved, and imported into elsewhere."""
    file, elsewhere = tmp_path / "growing.json", tmp_path / "elsewhere"
    file.write_bytes(line(0))
    run(lake, file)
    elsewhere.mkdir()
    for table in rows_of_every_table(lake):
        (lake / table).rename(elsewhere / table)
    file.write_bytes(line(0) + line(1))
    run(elsewhere, file)
    assert stored(elsewhere) == expected(range(2))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 2600), min_size=1, max_size=5), chunk_bytes=st.sampled_from([1, 700, 1 << 20]))
def test_however_it_grows_every_row_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, sizes: list[int], chunk_bytes: int
) -> None:
    """Whatever the bytes at which a growing file is imported, the end is every row once, and no KPI row twice."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    folder = tmp_path_factory.mktemp("grows")
    whole = b"".join(line(number) for number in range(8))
    file = folder / "growing.json"
    for size_bytes in (*sorted(sizes), len(whole)):
        file.write_bytes(whole[:size_bytes])
        run(folder / "lake", file)
    assert stored(folder / "lake") == expected(range(8))
    assert stored(folder / "lake", LOGS, "Body") == ["b0", "b3", "b6"]
    assert_no_kpi_twice(folder / "lake")


class _Halfway(Exception):
    """The import ends between two tables."""


def test_an_import_that_ended_between_two_tables_goes_on(
    tmp_path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk whose spans are in the lake and whose log records are not, in a file that has grown since."""
    file = tmp_path / "growing.json"
    file.write_bytes(line(0) + line(1))
    taken = LakeExporter._append

    def until_logs(exporter: LakeExporter, name: str, *arguments: Any) -> None:
        if name == LOGS:
            raise _Halfway
        taken(exporter, name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LakeExporter, "_append", until_logs)
        with pytest.raises(_Halfway):
            import_files.import_file(file, str(lake), load())
    assert (stored(lake), stored(lake, LOGS, "Body")) == (expected(range(2)), [])
    file.write_bytes(file.read_bytes() + line(2) + line(3))
    run(lake, file)
    assert (stored(lake), stored(lake, LOGS, "Body")) == (expected(range(4)), ["b0", "b3"])


PROGRAM = (
    "import sys\n"
    "from hubscope.collector.imports import chunks\n"
    "chunks.CHUNK_BYTES = 2000\n"
    "from hubscope.console.main import main\n"
    "main()\n"
)


def _start(lake: Path, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "import", "--lake", str(lake), str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_while_the_file_grows(tmp_path: Path, lake: Path) -> None:
    """kill -9 whenever another commit is there, the file longer at each start and its last line half-written."""
    whole = b"".join(line(number) for number in range(60))
    file = tmp_path / "growing.json"
    chance = random.Random(3)
    for turn in range(1, 6):
        file.write_bytes(whole[: len(whole) * turn // 6])
        process = _start(lake, file)
        commits, wanted = _commits(lake), chance.randrange(1, 6)
        _until(lambda p=process, c=commits, w=wanted: p.poll() is not None or _commits(lake) >= c + w)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    file.write_bytes(whole)
    last = _start(lake, file)
    _, talk = last.communicate(timeout=60)
    assert last.returncode == 0, talk
    assert stored(lake) == expected(range(60))
    assert stored(lake, LOGS, "Body") == sorted(f"b{number}" for number in range(0, 60, 3))
    assert_no_kpi_twice(lake)


def test_two_imports_at_once_add_every_row_once(tmp_path: Path, lake: Path) -> None:
    """A second import that starts while the first one writes, of the same file grown meanwhile, repeats nothing."""
    whole = b"".join(line(number) for number in range(40))
    file = tmp_path / "growing.json"
    file.write_bytes(whole[: len(whole) // 2])
    first = _start(lake, file)
    _until(lambda: _commits(lake) > 8)
    file.write_bytes(whole)
    second, third = _start(lake, file), _start(lake, file)
    for process in (first, second, third):
        _, talk = process.communicate(timeout=120)
        assert process.returncode == 0, talk
    assert stored(lake) == expected(range(40))
    assert stored(lake, LOGS, "Body") == sorted(f"b{number}" for number in range(0, 40, 3))


def _commits(lake: Path) -> int:
    return sum(1 for _ in lake.glob("*/_delta_log/*.json"))


def _until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)  # between two looks

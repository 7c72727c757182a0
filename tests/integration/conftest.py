"""A real `hubscope collect` on free ports with a lake of its own, and reading that lake."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 30.0
ROWS_DEADLINE_S = 20.0  # the design promises 2 s; a test machine may be busy with a build


@dataclass(frozen=True)
class Started:
    """A collector that is ready. `grpc` and `http` are endpoints as OTEL_EXPORTER_OTLP_ENDPOINT takes them."""

    grpc: str
    http: str
    telemetry: str
    lake: Path
    output: Path  # what it printed
    process: subprocess.Popen[bytes]


def _status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`free_port()`: a TCP port of 127.0.0.1 that nothing listened on a moment ago, never given twice."""
    given: set[int] = {4317, 4318, 4319, 8888}

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in given:
                given.add(port)
                return port

    return find


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """`wait_until(ask, what, deadline_s, explain=…)`: the first true answer of `ask()`, or a failure saying `what`."""

    def wait(ask: Callable[[], Any], what: str, deadline_s: float, explain: Callable[[], str] = lambda: "") -> Any:
        end = time.monotonic() + deadline_s
        while not (answer := ask()):
            if time.monotonic() > end:
                pytest.fail(f"{what}: not within {deadline_s:g} s\n{explain()}")
            time.sleep(0.05)  # between two looks at the condition; the deadline decides
        return answer

    return wait


@pytest.fixture
def start_collector(
    tmp_path: Path, free_port: Callable[[], int], wait_until: Callable[..., Any]
) -> Iterator[Callable[..., Started]]:
    """`start_collector(*flags)`: a collector on free ports, ready. Stopped by SIGTERM, it must end with 0."""
    running: list[Started] = []

    def start(*flags: str) -> Started:
        name = f"collector-{len(running) + 1}"
        grpc, http_port, telemetry = free_port(), free_port(), free_port()
        lake, output = tmp_path / name / "lake", tmp_path / name / "output.txt"
        lake.parent.mkdir()
        command = [sys.executable, "-m", "hubscope.console", "collect", "--lake", str(lake)]
        command += ["--grpc", f"127.0.0.1:{grpc}", "--http", f"127.0.0.1:{http_port}"]
        command += ["--telemetry", f"127.0.0.1:{telemetry}", *flags]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
        with output.open("wb") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=clean)
        started = Started(
            f"http://127.0.0.1:{grpc}",
            f"http://127.0.0.1:{http_port}",
            f"http://127.0.0.1:{telemetry}",
            lake,
            output,
            process,
        )
        running.append(started)

        def ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the collector ended with {process.returncode}:\n{output.read_text()}")
            return _status(f"{started.telemetry}/healthz") == 200

        wait_until(ready, "/healthz answers 200", START_DEADLINE_S, output.read_text)
        return started

    yield start
    for started in running:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGTERM)
    for started in running:
        try:
            code = started.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            started.process.kill()
            started.process.wait()
            pytest.fail(f"the collector did not stop within {STOP_DEADLINE_S:g} s:\n{started.output.read_text()}")
        assert code == 0, f"the collector ended with {code}:\n{started.output.read_text()}"


@pytest.fixture
def collector(start_collector: Callable[..., Started]) -> Started:
    """A collector with the defaults, on free ports."""
    return start_collector()


@pytest.fixture
def lake_rows(wait_until: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """`lake_rows(started, table, at_least, **equal)`: rows of a lake table as dicts, maps as dicts, times as they are.

    `equal` keeps the rows whose column has that value. Waits until `at_least` rows are there.
    """
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    def read(started: Started, table: str, equal: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            found: pa.Table = DeltaTable(str(started.lake / table)).to_pyarrow_table()
        except TableNotFoundError:
            return []
        rows = found.to_pylist(maps_as_pydicts="strict")
        return [row for row in rows if all(row[column] == value for column, value in equal.items())]

    def wait(started: Started, table: str, at_least: int, **equal: Any) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []

        def enough() -> list[dict[str, Any]] | None:
            seen[:] = read(started, table, equal)
            return seen if len(seen) >= at_least else None

        def explain() -> str:
            return f"there are {len(seen)}; the collector said:\n{started.output.read_text()}"

        found: list[dict[str, Any]] = wait_until(
            enough, f"{at_least} rows of {table} with {equal}", ROWS_DEADLINE_S, explain
        )
        return found

    return wait


def _value(text: str, kind: str | None) -> Any:
    """One value from its text and its type, as lake_schema describes them."""
    match kind:
        case None | "":
            return text
        case "int":
            return int(text)
        case "double":
            return float(text)
        case "bool":
            return {"true": True, "false": False}[text]
        case "bytes":
            return b64decode(text, validate=True)
        case "array" | "kvlist":
            return json.loads(text)
        case "empty":
            return None
    raise AssertionError(f"a type that lake_schema does not name: {kind!r}")


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for column, value in row.items():
        if column == "Body":
            answer[column] = _value(value, row["BodyType"])
        elif column.endswith("Attributes"):
            types = row[column.removesuffix("s") + "Types"]
            assert types.keys() <= value.keys(), f"types without values: {types.keys() - value.keys()}"
            answer[column] = {key: _value(text, types.get(key)) for key, text in value.items()}
        elif column.endswith("AttributeTypes") or column == "BodyType":
            continue
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            answer[column] = [_decoded(item) for item in value]
        else:
            answer[column] = value
    return answer


@pytest.fixture(scope="session")
def decoded() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`decoded(row)`: the row with each attribute map and its types made one map of values, in structs too."""
    return _decoded


def _differences(path: str, actual: Any, expected: Any) -> list[str]:
    if isinstance(actual, dict) and isinstance(expected, dict):
        both = sorted(actual.keys() | expected.keys())
        missing = [f"{path}.{k}: missing, expected {expected[k]!r}" for k in both if k not in actual]
        extra = [f"{path}.{k}: not expected, got {actual[k]!r}" for k in both if k not in expected]
        shared = [k for k in both if k in actual and k in expected]
        return missing + extra + [d for k in shared for d in _differences(f"{path}.{k}", actual[k], expected[k])]
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        pairs = enumerate(zip(actual, expected, strict=True))
        return [d for i, (a, e) in pairs for d in _differences(f"{path}[{i}]", a, e)]
    if type(actual) is type(expected):
        # Floats by their text: NaN is NaN, and -0.0 is not 0.0.
        same = repr(actual) == repr(expected) if isinstance(actual, float) else actual == expected
        if same:
            return []
    return [f"{path}: expected {expected!r}, got {actual!r}"]


@pytest.fixture(scope="session")
def differences() -> Callable[[str, Any, Any], list[str]]:
    """`differences(path, actual, expected)`: one line for each place where they differ; 1, 1.0 and True do."""
    return _differences

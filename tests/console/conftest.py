"""A lake as an application leaves it behind, written by the real exporter, and a way to call the command line."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from hubscope.console.main import main
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import SCHEMAS, TRACES
from hubscope.processors.batch import Batch
from hubscope.semconv import HOT_COLUMNS

START_NS = int(datetime(2026, 3, 2, 10, tzinfo=UTC).timestamp()) * 10**9
N_PLUS_ONE_TRACE = "b" * 32


def _row(
    run: str, version: str, trace: str, span: str, parent: str, name: str, start_ms: float, ms: float, **attributes: Any
) -> dict[str, Any]:
    resource = {"service.name": "reference-hub", "service.version": version, "service.instance.id": run}
    own = {key.replace("__", "."): value for key, value in attributes.items()}
    types = {k: {int: "int", float: "double", bool: "bool"}[type(v)] for k, v in own.items() if type(v) is not str}
    texts = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in own.items()}
    start_ns = START_NS + int(start_ms * 1e6)
    row: dict[str, Any] = dict.fromkeys(SCHEMAS[TRACES].names)
    for field in SCHEMAS[TRACES]:
        if pa.types.is_string(field.type) and field.name not in HOT_COLUMNS.values():
            row[field.name] = ""
        elif pa.types.is_int64(field.type):
            row[field.name] = 0
        elif pa.types.is_map(field.type) or pa.types.is_list(field.type):
            row[field.name] = []
    return row | {
        "Date": date(2026, 3, 2),
        "Timestamp": start_ns // 1000,
        "TimestampUnixNano": start_ns,
        "TraceId": trace,
        "SpanId": span,
        "ParentSpanId": parent,
        "SpanName": name,
        "SpanKind": "Internal",
        "ServiceName": "reference-hub",
        "ResourceAttributes": list(resource.items()),
        "SpanAttributes": list(texts.items()),
        "SpanAttributeTypes": list(types.items()),
        "Duration": int(ms * 1e6),
        "StatusCode": "Unset",
        "Events": [
            {
                "Timestamp": start_ns // 1000,
                "TimestampUnixNano": start_ns,
                "Name": "noted",
                "Attributes": [("size", "3")],
                "AttributeTypes": [("size", "int")],
                "DroppedAttributesCount": 0,
            }
        ],
        **{column: (resource | texts).get(name) for name, column in HOT_COLUMNS.items()},
    }


def _run(number: int, version: str, slow: float) -> list[dict[str, Any]]:
    """One run: a start with a phase and an import, a task with a search, a plugin and eight queries of one shape."""
    run, at = f"run-{number}", number * 10_000.0
    ids = (f"{number:02x}{i:014x}" for i in itertools.count(1))
    start_trace = f"{number:02x}" + "a" * 30
    task_trace = N_PLUS_ONE_TRACE if number == 0 else f"{number:02x}" + "c" * 30
    start, phase, load, task, search = (next(ids) for _ in range(5))

    def span(trace: str, span_id: str, parent: str, name: str, offset: float, ms: float, **attributes: Any) -> Any:
        return _row(run, version, trace, span_id, parent, name, at + offset, ms, **attributes)

    rows = [
        span(
            start_trace, start, "", "hub.startup", 0, 900 * slow, hub__startup__type="cold",
            hub__startup__end="interactive",
        ),
        span(start_trace, phase, start, "hub.startup.phase load", 10, 600 * slow, hub__startup__phase="load"),
        span(start_trace, load, phase, "import charts", 20, 500 * slow, code__namespace="charts"),
        span(task_trace, task, "", "task open", 2000, 300 * slow, hub__task__name="open"),
        span(
            task_trace, search, task, "search memories", 2001, 20, db__system__name="usearch",
            db__operation__name="search", db__collection__name="memories", hub__vector__top_k=10,
            hub__vector__size=5000,
        ),
        span(
            task_trace, next(ids), task, "plugin summarizer on_open", 2022, 15, hub__plugin__id="summarizer",
            hub__plugin__hook="on_open",
        ),
    ]  # fmt: skip
    for i in range(8):
        rows.append(
            span(
                task_trace, next(ids), task, "SELECT tags", 2040 + i * 20, 12 * slow, db__system__name="sqlite",
                db__collection__name="tags", db__query__text="SELECT * FROM tags WHERE id = ?",
                db__query__summary="SELECT tags",
            )
        )  # fmt: skip
    return rows


def write_lake(folder: Path) -> Path:
    """Two versions of three runs each, with a cause for most of what can be found."""
    rows = [row for n in range(6) for row in _run(n, "1" if n < 3 else "2", 1.0 if n < 3 else 0.5)]
    table = pa.Table.from_pylist(rows, SCHEMAS[TRACES])
    exporter = LakeExporter(str(folder), upkeep=False)
    exporter.export(Batch(1, START_NS, {TRACES: table}))
    return folder


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lake(tmp_path_factory.mktemp("lake") / "lake")


@pytest.fixture
def hubscope(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`hubscope("report", "--lake", …)`: calls the command line in this process, with its output caught."""
    ours = [name for name in os.environ if name.startswith("HUBSCOPE_")]
    for name in (*ours, "OTEL_EXPORTER_OTLP_ENDPOINT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, **extra: Any) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="hubscope", **extra)

    return call

"""What the tests of the lake share: rows, batches, what is stored, and an upkeep without its thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from hubscope.analytics.connect import connect
from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.lake_upkeep import Upkeep
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch


@pytest.fixture
def lakes() -> Any:
    """This module, for the tests to call."""
    return sys.modules[__name__]


DAY_NS = 86_400 * 10**9
DAY_S = 86_400.0
DAY = 20_000  # 2024-10-04


def rows(*names: str, day: int = DAY) -> pa.Table:
    """A span of each name, at the beginning of that day since 1970."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="hub")))
    spans = resource.scope_spans.add().spans
    for name in names:
        attributes = [KeyValue(key=name, value=AnyValue(string_value="v"))]
        span = spans.add(name=name, start_time_unix_nano=day * DAY_NS + 1, attributes=attributes)
        span.trace_id, span.span_id = name.encode().ljust(16, b".")[:16], b"12345678"
        span.events.add(name=f"event of {name}", time_unix_nano=5)
    return decode([Record(Signal.TRACES, request.SerializeToString(), 1)])[TRACES]


def batch(segment: int, *names: str, day: int = DAY) -> Batch:
    return Batch(segment, 1, {TRACES: rows(*names, day=day)})


def seen(folder: Path | str) -> list[str]:
    """The names of all spans that a reader sees, sorted."""
    found = connect(folder).execute("SELECT SpanName FROM otel_traces ORDER BY 1").fetchall()
    return [name for (name,) in found]


def parquet_files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.parquet") if path.parent.name != "_delta_log"}


def upkeep(lake: Path | str, now_unix_s: Callable[[], float] = lambda: (DAY + 3) * DAY_S, **policy: Any) -> Upkeep:
    """An upkeep whose steps the test calls itself, at a time that the test says."""
    made = Upkeep(str(lake), {}, None, now_unix_s)
    made._policy = LakePolicy(**{"min_free_disk_bytes": 0, **policy})
    return made

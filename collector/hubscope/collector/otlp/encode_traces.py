"""Rows of `otel_traces` back to OTLP: the spans that sampling kept, for destinations that take only those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode_traces import KINDS, STATUS_CODES
from hubscope.collector.otlp.encode import grouped, key_values, unsigned
from hubscope.lake_schema import EXACT_PREFIX

SPANS_A_REQUEST: Final = 4096  # 1.5 MB of ordinary spans; gRPC servers take 4 MiB unless told otherwise
_KINDS: Final = {name: number for number, name in enumerate(KINDS.to_pylist())}
_CODES: Final = {name: number for number, name in enumerate(STATUS_CODES.to_pylist())}


def encode_spans(rows: pa.Table, received_unix_nano: int) -> list[Record]:
    """The spans as requests. 88 us a span: for the share that is kept, not for all that arrives."""
    records = []
    for start in range(0, rows.num_rows, SPANS_A_REQUEST):
        request = ExportTraceServiceRequest()
        members = rows.slice(start, SPANS_A_REQUEST).to_pylist()
        for resource, resource_url, scope, scope_url, spans in grouped(members):
            above = request.resource_spans.add(resource=resource, schema_url=resource_url)
            under = above.scope_spans.add(scope=scope, schema_url=scope_url)
            under.spans.extend(_span(row) for row in spans)
        records.append(Record(Signal.TRACES, request.SerializeToString(), received_unix_nano))
    return records


def _span(row: Mapping[str, Any]) -> Span:
    exact = {key: int(text) for key, text in row["SpanAttributes"] if key in _EXACT}
    start = row["TimestampUnixNano"]
    values = [pair for pair in row["SpanAttributes"] if pair[0] not in _EXACT]
    span = Span(
        trace_id=bytes.fromhex(row["TraceId"]),
        span_id=bytes.fromhex(row["SpanId"]),
        parent_span_id=bytes.fromhex(row["ParentSpanId"]),
        trace_state=row["TraceState"] or "",
        name=row["SpanName"] or "",
        kind=_number(row["SpanKind"], _KINDS),  # type: ignore[arg-type]
        start_time_unix_nano=exact.get(_EXACT[0], unsigned(start)),
        end_time_unix_nano=exact.get(_EXACT[1], unsigned(start + row["Duration"])),
        attributes=key_values(values, row["SpanAttributeTypes"]),
        dropped_attributes_count=row["DroppedAttributesCount"] or 0,
        dropped_events_count=row["DroppedEventsCount"] or 0,
        dropped_links_count=row["DroppedLinksCount"] or 0,
        flags=row["TraceFlags"] or 0,
    )
    if row["StatusMessage"] or row["StatusCode"] != "Unset":
        code = _number(row["StatusCode"], _CODES)
        span.status.CopyFrom(Status(message=row["StatusMessage"] or "", code=code))  # type: ignore[arg-type]
    for event in row["Events"] or ():
        exact = {key: int(text) for key, text in event["Attributes"] if key == _EXACT[0]}
        span.events.add(
            time_unix_nano=exact.get(_EXACT[0], unsigned(event["TimestampUnixNano"])),
            name=event["Name"] or "",
            attributes=key_values([p for p in event["Attributes"] if p[0] not in exact], event["AttributeTypes"]),
            dropped_attributes_count=event["DroppedAttributesCount"] or 0,
        )
    for link in row["Links"] or ():
        span.links.add(
            trace_id=bytes.fromhex(link["TraceId"]),
            span_id=bytes.fromhex(link["SpanId"]),
            trace_state=link["TraceState"] or "",
            attributes=key_values(link["Attributes"], link["AttributeTypes"]),
            dropped_attributes_count=link["DroppedAttributesCount"] or 0,
            flags=link["Flags"] or 0,
        )
    return span


_EXACT: Final = (f"{EXACT_PREFIX}TimestampUnixNano", f"{EXACT_PREFIX}EndTimeUnixNano")


def _number(name: str, numbers: Mapping[str, int]) -> int:
    """The number of an enum's name; one without a name stands as decimal text."""
    return numbers[name] if name in numbers else int(name)

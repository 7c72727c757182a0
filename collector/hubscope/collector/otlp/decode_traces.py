"""ExportTraceServiceRequests to rows of `otel_traces`, by whole columns."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from hubscope.collector.otlp.attributes import Added, attributes
from hubscope.collector.otlp.decode_common import (
    Exact,
    day,
    hex_ids,
    hot_columns,
    microseconds,
    named,
    resource_and_scope,
    same_lists,
    walk,
    whole,
)
from hubscope.lake_schema import SCHEMAS, TRACES

KINDS: Final = pa.array(["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"])
STATUS_CODES: Final = pa.array(["Unset", "Ok", "Error"])
_schema = SCHEMAS[TRACES]


def spans(requests: pa.RecordBatch, added: Added = ()) -> pa.Table:
    """The spans of requests as ptars gives them, in the order they were sent."""
    above = walk(requests.column("resource_spans"), "scope_spans", "spans")
    span = above.rows
    exact = Exact()
    of_span = attributes(span.field("attributes"))
    start = exact.int64("TimestampUnixNano", span.field("start_time_unix_nano"))
    end = exact.int64("EndTimeUnixNano", span.field("end_time_unix_nano"))
    time = microseconds(start)
    values, types = of_span.with_extra(exact.extra)
    status = span.field("status")
    columns = {
        "Date": day(time),
        "Timestamp": time,
        "TimestampUnixNano": start,
        "TraceId": hex_ids(span.field("trace_id")),
        "SpanId": hex_ids(span.field("span_id")),
        "ParentSpanId": hex_ids(span.field("parent_span_id")),
        "TraceState": span.field("trace_state"),
        "SpanName": span.field("name"),
        "SpanKind": named(span.field("kind"), KINDS),
        **resource_and_scope(above, above.scope_of_row, added),
        "SpanAttributes": values,
        "SpanAttributeTypes": types,
        "Duration": pc.subtract(end, start),
        "StatusCode": named(status.field("code"), STATUS_CODES),
        "StatusMessage": status.field("message"),
        "Events": _events(span.field("events")),
        "Links": _links(span.field("links")),
        "TraceFlags": whole(span.field("flags")),
        "DroppedAttributesCount": whole(span.field("dropped_attributes_count")),
        "DroppedEventsCount": whole(span.field("dropped_events_count")),
        "DroppedLinksCount": whole(span.field("dropped_links_count")),
        **hot_columns(of_span),
    }
    return pa.Table.from_arrays([columns[name] for name in _schema.names], schema=_schema)


def _events(lists: pa.ListArray) -> pa.ListArray:
    event = lists.flatten()
    exact = Exact()
    time = exact.int64("TimestampUnixNano", event.field("time_unix_nano"))
    values, types = attributes(event.field("attributes")).with_extra(exact.extra)
    fields = list(_schema.field("Events").type.value_type)
    columns = [
        microseconds(time),
        time,
        event.field("name"),
        values,
        types,
        whole(event.field("dropped_attributes_count")),
    ]
    return same_lists(lists, pa.StructArray.from_arrays(columns, fields=fields))


def _links(lists: pa.ListArray) -> pa.ListArray:
    link = lists.flatten()
    of_link = attributes(link.field("attributes"))
    fields = list(_schema.field("Links").type.value_type)
    columns = [
        hex_ids(link.field("trace_id")),
        hex_ids(link.field("span_id")),
        link.field("trace_state"),
        of_link.values,
        of_link.types,
        whole(link.field("dropped_attributes_count")),
        whole(link.field("flags")),
    ]
    return same_lists(lists, pa.StructArray.from_arrays(columns, fields=fields))

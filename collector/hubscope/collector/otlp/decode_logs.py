"""ExportLogsServiceRequests to rows of `otel_logs`, by whole columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hubscope.collector.otlp.attributes import Added, attributes
from hubscope.collector.otlp.decode_common import (
    Exact,
    day,
    hex_ids,
    hot_columns,
    microseconds,
    resource_and_scope,
    walk,
    whole,
)
from hubscope.collector.otlp.decode_values import EMPTY, STRING, texts, type_names
from hubscope.lake_schema import LOGS, SCHEMAS

_schema = SCHEMAS[LOGS]


def log_records(requests: pa.RecordBatch, added: Added = ()) -> pa.Table:
    """The log records of requests as ptars gives them, in the order they were sent."""
    above = walk(requests.column("resource_logs"), "scope_logs", "log_records")
    record = above.rows
    exact = Exact()
    of_record = attributes(record.field("attributes"))
    sent = exact.int64("TimestampUnixNano", record.field("time_unix_nano"))
    observed = exact.int64("ObservedTimestampUnixNano", record.field("observed_time_unix_nano"))
    known = sent.to_numpy()
    time = microseconds(pa.array(np.where(known == 0, observed.to_numpy(), known)))
    values, types = of_record.with_extra(exact.extra)
    body, body_types = _bodies(record.field("body"))
    columns = {
        "Date": day(time),
        "Timestamp": time,
        "TimestampUnixNano": sent,
        "ObservedTimestampUnixNano": observed,
        "TraceId": hex_ids(record.field("trace_id")),
        "SpanId": hex_ids(record.field("span_id")),
        "TraceFlags": whole(record.field("flags")),
        "SeverityText": record.field("severity_text"),
        "SeverityNumber": whole(record.field("severity_number")),
        "Body": body,
        "BodyType": body_types,
        **resource_and_scope(above, above.scope_of_row, added),
        "LogAttributes": values,
        "LogAttributeTypes": types,
        "EventName": record.field("event_name"),
        "DroppedAttributesCount": whole(record.field("dropped_attributes_count")),
        **hot_columns(of_record),
    }
    return pa.Table.from_arrays([columns[name] for name in _schema.names], schema=_schema)


def _bodies(bodies: pa.StructArray) -> tuple[pa.Array, pa.Array]:
    """Text and type of each body. A record without a body has a null `Body`; its type is `empty`."""
    text, kinds = texts(bodies)
    types = pa.repeat(STRING, len(bodies)) if kinds is None else type_names(kinds)
    if bodies.null_count:
        absent = bodies.is_null().to_numpy(zero_copy_only=False)
        text = pa.array(np.where(absent, None, text.to_numpy(zero_copy_only=False)), pa.string())
        types = pa.array(np.where(absent, EMPTY, types.to_numpy(zero_copy_only=False)), pa.string())
    return text, types

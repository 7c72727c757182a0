"""Rows of the lake for what processors derive: a log event, a gauge, a sum, an exponential histogram."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.lake_schema import SCHEMAS
from hubscope.processors.sketch import SCALE, Sketch
from hubscope.processors.windows import Subject

SCOPE: Final = "hubscope.processors"
WARN: Final = 13  # SeverityNumber of the OpenTelemetry logs data model
DELTA: Final = 1

Row = dict[str, Any]
Resource = list[tuple[str, str]]

_METRICS: Final = {metric.name: metric for metric in semconv.METRICS}
_UNIX_DAY_ZERO: Final = datetime.date(1970, 1, 1)
_NANOSECONDS_A_DAY: Final = 86_400 * 10**9


def table(table_name: str, rows: Iterable[Row]) -> pa.Table:
    """Rows as a table in the lake's schema; a column that a row does not have is null."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[table_name])


def resource_of(subject: Subject) -> Resource:
    """The resource of a value that belongs to a service and version, not to one process."""
    found = [(semconv.SERVICE_NAME, subject.service)]
    return [*found, (semconv.SERVICE_VERSION, subject.version)] if subject.version else found


def _base(service: str, resource: Resource, attributes: Mapping[str, str | float], time_ns: int) -> Row:
    hot = {**dict(resource), **attributes}
    return {
        "Date": _UNIX_DAY_ZERO + datetime.timedelta(days=time_ns // _NANOSECONDS_A_DAY),
        "ServiceName": service,
        "ResourceAttributes": resource,
        "ResourceAttributeTypes": [],
        "ResourceDroppedAttributesCount": 0,
        "ResourceSchemaUrl": "",
        "ScopeName": SCOPE,
        "ScopeVersion": "",
        "ScopeAttributes": [],
        "ScopeAttributeTypes": [],
        "ScopeDroppedAttrCount": 0,
        "ScopeSchemaUrl": semconv.SCHEMA_URL,
        **{column: str(hot[name]) for name, column in semconv.HOT_COLUMNS.items() if name in hot},
    }


def _texts(attributes: Mapping[str, str | float]) -> list[tuple[str, str]]:
    """As the decoder writes them: a double as Arrow casts it, `30` and not `30.0`."""
    return [
        (name, value if isinstance(value, str) else str(pc.cast(pa.scalar(float(value)), pa.string())))
        for name, value in attributes.items()
    ]


def _types(attributes: Mapping[str, str | float]) -> list[tuple[str, str]]:
    return [(name, "double") for name, value in attributes.items() if not isinstance(value, str)]


def event(
    name: str,
    body: str,
    service: str,
    resource: Resource,
    attributes: Mapping[str, str | float],
    time_ns: int,
    observed_ns: int,
    trace_id: str = "",
    span_id: str = "",
) -> Row:
    """A row of otel_logs with that EventName, severity WARN."""
    return {
        **_base(service, resource, attributes, time_ns),
        "Timestamp": time_ns // 1000,
        "TimestampUnixNano": time_ns,
        "ObservedTimestampUnixNano": observed_ns,
        "TraceId": trace_id,
        "SpanId": span_id,
        "TraceFlags": 1 if trace_id else 0,
        "SeverityText": "WARN",
        "SeverityNumber": WARN,
        "Body": body,
        "BodyType": "",
        "LogAttributes": _texts(attributes),
        "LogAttributeTypes": _types(attributes),
        "EventName": name,
        "DroppedAttributesCount": 0,
    }


def _point(
    metric: str,
    unit: str,
    service: str,
    resource: Resource,
    attributes: Mapping[str, str | float],
    start_ns: int,
    time_ns: int,
) -> Row:
    known = _METRICS[metric]
    return {
        **_base(service, resource, attributes, time_ns),
        "MetricName": metric,
        "MetricDescription": known.brief,
        "MetricUnit": unit or known.unit,
        "MetricMetadata": [],
        "Attributes": _texts(attributes),
        "AttributeTypes": _types(attributes),
        "StartTimeUnix": start_ns // 1000,
        "StartTimeUnixNano": start_ns,
        "TimeUnix": time_ns // 1000,
        "TimeUnixNano": time_ns,
        "Flags": 0,
        "Exemplars": [],
    }


def gauge(
    metric: str,
    unit: str,
    service: str,
    resource: Resource,
    attributes: Mapping[str, str | float],
    start_ns: int,
    time_ns: int,
    value: float,
) -> Row:
    """A row of otel_metrics_gauge."""
    return {**_point(metric, unit, service, resource, attributes, start_ns, time_ns), "Value": value}


def count(
    metric: str,
    service: str,
    resource: Resource,
    attributes: Mapping[str, str | float],
    start_ns: int,
    time_ns: int,
    added: int,
) -> Row:
    """A row of otel_metrics_sum: a delta, because a batch knows what it added and a replay must say the same."""
    return {
        **_point(metric, "", service, resource, attributes, start_ns, time_ns),
        "Value": float(added),
        "ValueInt": added,
        "AggregationTemporality": DELTA,
        "IsMonotonic": True,
    }


def distribution(
    metric: str,
    service: str,
    resource: Resource,
    attributes: Mapping[str, str | float],
    start_ns: int,
    time_ns: int,
    sketch: Sketch,
) -> Row:
    """A row of otel_metrics_exponential_histogram (delta) with the sketch's buckets."""
    first, last = (min(sketch.buckets), max(sketch.buckets)) if sketch.buckets else (0, -1)
    return {
        **_point(metric, "", service, resource, attributes, start_ns, time_ns),
        "Count": int(sketch.count),
        "Sum": sketch.total,
        "Min": sketch.low,
        "Max": sketch.high,
        "AggregationTemporality": DELTA,
        "Scale": SCALE,
        "ZeroCount": int(sketch.zero),
        "ZeroThreshold": 0.0,
        "PositiveOffset": first,
        "PositiveBucketCounts": [int(sketch.buckets.get(bucket, 0)) for bucket in range(first, last + 1)],
        "NegativeOffset": 0,
        "NegativeBucketCounts": [],
    }

"""The lake's tables: one Delta table a signal, columns as the Collector's ClickHouse exporter names them.

Everything that writes the lake or reads it takes its columns from here, and docs/reference/lake.md is generated
from it. Attribute values are text; the `…Types` map beside each attribute map names the type of every value that
is not a string (`int`, `double`, `bool`, `bytes`, `array`, `kvlist`, `empty`), so that nothing is lost. Integers
and doubles are written in decimal, bytes in base64, arrays and key-value lists as JSON. `MetricMetadata` has no map of
types beside it: there the type of `key` stands in the same map as `hub.type.key`.

Delta keeps time in microseconds; the `…UnixNano` columns hold it exactly (int64 nanoseconds since 1970).
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from hubscope.errors import LakeError
from hubscope.semconv import HOT_COLUMNS

# Written into each table's configuration; a reader refuses a lake from a newer version than it knows.
LAKE_VERSION: Final = 1
LAKE_VERSION_KEY: Final = "hubscope.lakeVersion"

TRACES: Final = "otel_traces"
LOGS: Final = "otel_logs"
GAUGE: Final = "otel_metrics_gauge"
SUM: Final = "otel_metrics_sum"
HISTOGRAM: Final = "otel_metrics_histogram"
EXPONENTIAL_HISTOGRAM: Final = "otel_metrics_exponential_histogram"
SUMMARY: Final = "otel_metrics_summary"
ROLLUP: Final = "hub_rollup"  # ours, made of the others: what a series did in a minute

PARTITION: Final = "Date"

# The lake's integers are signed. A number above 2^63-1 (times and counts are unsigned in OTLP) reads 2^63-1 in its
# column, and exactly, as decimal text, as the row's attribute of this prefix and the column's name.
EXACT_PREFIX: Final = "hub.exact."
# A metric's metadata has no map of types beside it: the type of a value that is no string stands in the same map, under
# this prefix and the value's key.
TYPE_PREFIX: Final = "hub.type."

_time = pa.timestamp("us", tz="UTC")
_map = pa.map_(pa.string(), pa.string())
_hot = [pa.field(column, pa.string()) for column in HOT_COLUMNS.values()]  # null where the attribute is absent

_resource_and_scope = [
    pa.field("ServiceName", pa.string()),
    pa.field("ResourceAttributes", _map),
    pa.field("ResourceAttributeTypes", _map),
    pa.field("ResourceDroppedAttributesCount", pa.int64()),
    pa.field("ResourceSchemaUrl", pa.string()),
    pa.field("ScopeName", pa.string()),
    pa.field("ScopeVersion", pa.string()),
    pa.field("ScopeAttributes", _map),
    pa.field("ScopeAttributeTypes", _map),
    pa.field("ScopeDroppedAttrCount", pa.int64()),
    pa.field("ScopeSchemaUrl", pa.string()),
]

_event = pa.struct(
    [
        ("Timestamp", _time),
        ("TimestampUnixNano", pa.int64()),
        ("Name", pa.string()),
        ("Attributes", _map),
        ("AttributeTypes", _map),
        ("DroppedAttributesCount", pa.int64()),
    ]
)
_link = pa.struct(
    [
        ("TraceId", pa.string()),
        ("SpanId", pa.string()),
        ("TraceState", pa.string()),
        ("Attributes", _map),
        ("AttributeTypes", _map),
        ("DroppedAttributesCount", pa.int64()),
        ("Flags", pa.int64()),
    ]
)
_exemplar = pa.struct(
    [
        ("FilteredAttributes", _map),
        ("FilteredAttributeTypes", _map),
        ("TimeUnix", _time),
        ("TimeUnixNano", pa.int64()),
        ("Value", pa.float64()),
        ("ValueInt", pa.int64()),  # set where the value was an integer
        ("SpanId", pa.string()),
        ("TraceId", pa.string()),
    ]
)

_traces = pa.schema(
    [
        pa.field(PARTITION, pa.date32()),  # UTC day of Timestamp
        pa.field("Timestamp", _time),  # start
        pa.field("TimestampUnixNano", pa.int64()),
        pa.field("TraceId", pa.string()),  # 32 lower-case hex digits
        pa.field("SpanId", pa.string()),  # 16
        pa.field("ParentSpanId", pa.string()),  # '' on a root
        pa.field("TraceState", pa.string()),
        pa.field("SpanName", pa.string()),
        pa.field("SpanKind", pa.string()),  # Unspecified, Internal, Server, Client, Producer, Consumer
        *_resource_and_scope,
        pa.field("SpanAttributes", _map),
        pa.field("SpanAttributeTypes", _map),
        pa.field("Duration", pa.int64()),  # ns; negative where the clock went back
        pa.field("StatusCode", pa.string()),  # Unset, Ok, Error
        pa.field("StatusMessage", pa.string()),
        pa.field("Events", pa.list_(_event)),
        pa.field("Links", pa.list_(_link)),
        pa.field("TraceFlags", pa.int64()),
        pa.field("DroppedAttributesCount", pa.int64()),
        pa.field("DroppedEventsCount", pa.int64()),
        pa.field("DroppedLinksCount", pa.int64()),
        *_hot,
    ]
)

_logs = pa.schema(
    [
        pa.field(PARTITION, pa.date32()),
        pa.field("Timestamp", _time),  # the record's time, or when it was observed where it has none
        pa.field("TimestampUnixNano", pa.int64()),  # 0 where the record has none
        pa.field("ObservedTimestampUnixNano", pa.int64()),
        pa.field("TraceId", pa.string()),
        pa.field("SpanId", pa.string()),
        pa.field("TraceFlags", pa.int64()),
        pa.field("SeverityText", pa.string()),
        pa.field("SeverityNumber", pa.int64()),
        pa.field("Body", pa.string()),
        pa.field("BodyType", pa.string()),  # '' is a string
        *_resource_and_scope,
        pa.field("LogAttributes", _map),
        pa.field("LogAttributeTypes", _map),
        pa.field("EventName", pa.string()),
        pa.field("DroppedAttributesCount", pa.int64()),
        *_hot,
    ]
)

_point = [
    pa.field(PARTITION, pa.date32()),
    *_resource_and_scope,
    pa.field("MetricName", pa.string()),
    pa.field("MetricDescription", pa.string()),
    pa.field("MetricUnit", pa.string()),
    pa.field("MetricMetadata", _map),
    pa.field("Attributes", _map),
    pa.field("AttributeTypes", _map),
    pa.field("StartTimeUnix", _time),
    pa.field("StartTimeUnixNano", pa.int64()),
    pa.field("TimeUnix", _time),
    pa.field("TimeUnixNano", pa.int64()),
    pa.field("Flags", pa.int64()),
    *_hot,
]
_number = [
    pa.field("Value", pa.float64()),
    pa.field("ValueInt", pa.int64()),
    pa.field("Exemplars", pa.list_(_exemplar)),
]
_temporality = pa.field("AggregationTemporality", pa.int32())  # 1 delta, 2 cumulative
_distribution = [
    pa.field("Count", pa.int64()),
    pa.field("Sum", pa.float64()),  # null where the sender gave none
    pa.field("Min", pa.float64()),
    pa.field("Max", pa.float64()),
    pa.field("Exemplars", pa.list_(_exemplar)),
    _temporality,
]

# What a series is: all of a minute's spans, or values of a KPI, that agree in these. Null where there is none.
ROLLUP_KEYS: Final = (
    "ServiceName",
    "ServiceVersion",
    "ServiceInstanceId",
    "MetricName",
    "KpiName",
    "SpanName",
    "SpanKind",
    "DbQuerySummary",
    "PluginId",
    "PluginHook",
    "TaskName",
)
_rollup = pa.schema(
    [
        pa.field(PARTITION, pa.date32()),
        pa.field("TimeUnix", _time),  # the minute's first moment
        pa.field("TimeUnixNano", pa.int64()),
        pa.field("ServiceName", pa.string()),
        pa.field("ServiceVersion", pa.string()),
        pa.field("ServiceInstanceId", pa.string()),
        pa.field("MetricName", pa.string()),  # `hub.kpi.value`; null: spans, by the minute they started in
        pa.field("KpiName", pa.string()),
        pa.field("SpanName", pa.string()),  # `(other)`: all series beyond 2,000
        pa.field("SpanKind", pa.string()),
        pa.field("DbQuerySummary", pa.string()),
        pa.field("PluginId", pa.string()),
        pa.field("PluginHook", pa.string()),
        pa.field("TaskName", pa.string()),
        pa.field("Count", pa.int64()),  # rows of one minute and series are to be added: there may be several
        pa.field("ErrorCount", pa.int64()),  # spans with status Error, KPI values that missed their target
        pa.field("Sum", pa.float64()),  # seconds, or the KPI's unit
        pa.field("Min", pa.float64()),
        pa.field("Max", pa.float64()),
        # Bucket i counts values in (2^(i/32), 2^((i+1)/32)]: an exponential histogram of scale 5, a quantile from it is
        # off by 1.1 % at most. 0 and less is in the lowest bucket, -34368.
        pa.field("BucketIndexes", pa.list_(pa.int32())),
        pa.field("BucketCounts", pa.list_(pa.int64())),
    ]
)

SCHEMAS: Final[dict[str, pa.Schema]] = {
    TRACES: _traces,
    LOGS: _logs,
    GAUGE: pa.schema([*_point, *_number]),
    SUM: pa.schema([*_point, *_number, _temporality, pa.field("IsMonotonic", pa.bool_())]),
    HISTOGRAM: pa.schema(
        [
            *_point,
            *_distribution,
            pa.field("BucketCounts", pa.list_(pa.int64())),
            pa.field("ExplicitBounds", pa.list_(pa.float64())),
        ]
    ),
    EXPONENTIAL_HISTOGRAM: pa.schema(
        [
            *_point,
            *_distribution,
            pa.field("Scale", pa.int32()),
            pa.field("ZeroCount", pa.int64()),
            pa.field("ZeroThreshold", pa.float64()),
            pa.field("PositiveOffset", pa.int32()),
            pa.field("PositiveBucketCounts", pa.list_(pa.int64())),
            pa.field("NegativeOffset", pa.int32()),
            pa.field("NegativeBucketCounts", pa.list_(pa.int64())),
        ]
    ),
    SUMMARY: pa.schema(
        [
            *_point,
            pa.field("Count", pa.int64()),
            pa.field("Sum", pa.float64()),
            pa.field("ValueAtQuantiles", pa.list_(pa.struct([("Quantile", pa.float64()), ("Value", pa.float64())]))),
        ]
    ),
    ROLLUP: _rollup,
}


def check_version(version: str | None, lake: str) -> None:
    """Raise LakeError for a lake whose `LAKE_VERSION_KEY` is newer than what this hubscope knows, or no number."""
    if version is not None and not (version.isdigit() and int(version) <= LAKE_VERSION):
        raise LakeError(
            f"the lake at {lake} is of version {version}; this hubscope knows up to {LAKE_VERSION}",
            "upgrade hubscope: pip install --upgrade 'hubscope[all]'",
        )

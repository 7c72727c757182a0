"""Rows of the lake back to OTLP: what processors derived, for destinations that take OTLP. A few rows a segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from hubscope import lake_values
from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode_metrics import KINDS
from hubscope.errors import PermanentError
from hubscope.lake_schema import GAUGE, HISTOGRAM, LOGS, ROLLUP, SUM, SUMMARY

Row = Mapping[str, Any]
_KIND_OF: Final = {table_name: kind for kind, table_name in KINDS.items()}
# Of messages in messages; the front's parser refuses requests of more than 100.
MAX_DEPTH: Final = 100
# Rows with the same values here stand under one resource and scope.
_RESOURCE: Final = (
    "ResourceAttributes",
    "ResourceAttributeTypes",
    "ResourceDroppedAttributesCount",
    "ResourceSchemaUrl",
)
_SCOPE: Final = (
    "ScopeName",
    "ScopeVersion",
    "ScopeAttributes",
    "ScopeAttributeTypes",
    "ScopeDroppedAttrCount",
    "ScopeSchemaUrl",
)


def encode_derived(derived: Mapping[str, pa.Table], received_unix_nano: int) -> list[Record]:
    """The derived rows as requests, at most one of metrics and one of logs. Rollups stay in the lake.

    Raises PermanentError for spans: processors derive points and events, nothing else.
    """
    other = [name for name, rows in derived.items() if rows.num_rows and name not in (*_KIND_OF, LOGS, ROLLUP)]
    if other:
        raise PermanentError(f"derived rows of {', '.join(other)} cannot be forwarded", "derive metrics or logs")
    records = []
    metrics = ExportMetricsServiceRequest()
    for name in _KIND_OF:
        if name in derived:
            _add_metrics(metrics, derived[name].to_pylist(), name)
    if metrics.resource_metrics:
        records.append(Record(Signal.METRICS, metrics.SerializeToString(), received_unix_nano))
    if LOGS in derived and derived[LOGS].num_rows:
        logs = _logs(derived[LOGS].to_pylist())
        records.append(Record(Signal.LOGS, logs.SerializeToString(), received_unix_nano))
    return records


def any_value(text: str, type_name: str) -> AnyValue:
    """The value that `decode_values.texts` made this text and type of."""
    return ParseDict(lake_values.any_value(text, type_name), AnyValue(), max_recursion_depth=MAX_DEPTH)


def key_values(values: Any, types: Any) -> list[KeyValue]:
    """The attributes of a map and its types (lists of pairs, as pyarrow gives maps)."""
    named = dict(types or ())
    return [KeyValue(key=key, value=any_value(text, named.get(key, ""))) for key, text in values or ()]


def unsigned(unix_nano: int | None) -> int:
    """A time as OTLP has it. A window that ends before it began in 1970, from a clock at 0, begins then."""
    return max(0, unix_nano or 0)


def grouped(rows: list[Row]) -> Iterator[tuple[Resource, str, InstrumentationScope, str, list[Row]]]:
    """(resource, its schema URL, scope, its schema URL, rows) for each resource and scope."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr([row[column] for column in (*_RESOURCE, *_SCOPE)]), []).append(row)
    for members in groups.values():
        first = members[0]
        resource = Resource(
            attributes=key_values(first["ResourceAttributes"], first["ResourceAttributeTypes"]),
            dropped_attributes_count=first["ResourceDroppedAttributesCount"] or 0,
        )
        scope = InstrumentationScope(
            name=first["ScopeName"] or "",
            version=first["ScopeVersion"] or "",
            attributes=key_values(first["ScopeAttributes"], first["ScopeAttributeTypes"]),
            dropped_attributes_count=first["ScopeDroppedAttrCount"] or 0,
        )
        yield resource, first["ResourceSchemaUrl"] or "", scope, first["ScopeSchemaUrl"] or "", members


def _add_metrics(request: ExportMetricsServiceRequest, rows: list[Row], table_name: str) -> None:
    for resource, resource_url, scope, scope_url, members in grouped(rows):
        above = request.resource_metrics.add(resource=resource, schema_url=resource_url)
        under = above.scope_metrics.add(scope=scope, schema_url=scope_url)
        by_name: dict[tuple[Any, ...], Metric] = {}
        for row in members:
            key = (row["MetricName"], row["MetricUnit"], row.get("AggregationTemporality"), row.get("IsMonotonic"))
            metric = by_name.get(key)
            if metric is None:
                metric = by_name[key] = under.metrics.add(
                    name=row["MetricName"] or "",
                    unit=row["MetricUnit"] or "",
                    description=row["MetricDescription"] or "",
                    metadata=key_values(row["MetricMetadata"], ()),
                )
            _add_point(metric, row, table_name)


def _add_point(metric: Metric, row: Row, table_name: str) -> None:
    data: Any = getattr(metric, _KIND_OF[table_name])
    if table_name not in (GAUGE, SUMMARY):
        data.aggregation_temporality = row["AggregationTemporality"] or 0
    if table_name == SUM:
        data.is_monotonic = bool(row["IsMonotonic"])
    point = data.data_points.add(
        attributes=key_values(row["Attributes"], row["AttributeTypes"]),
        start_time_unix_nano=unsigned(row["StartTimeUnixNano"]),
        time_unix_nano=unsigned(row["TimeUnixNano"]),
        flags=row["Flags"] or 0,
    )
    if table_name in (GAUGE, SUM):
        _set_value(point, row)
    else:
        _set_distribution(point, row, table_name)
    for exemplar in row.get("Exemplars") or ():
        added = point.exemplars.add(
            filtered_attributes=key_values(exemplar["FilteredAttributes"], exemplar["FilteredAttributeTypes"]),
            time_unix_nano=unsigned(exemplar["TimeUnixNano"]),
            span_id=bytes.fromhex(exemplar["SpanId"] or ""),
            trace_id=bytes.fromhex(exemplar["TraceId"] or ""),
        )
        _set_value(added, exemplar)


def _set_value(holder: Any, row: Row) -> None:
    if row["ValueInt"] is not None:
        holder.as_int = row["ValueInt"]
    elif row["Value"] is not None:
        holder.as_double = row["Value"]


def _set_distribution(point: Any, row: Row, table_name: str) -> None:
    point.count = row["Count"] or 0
    for field, column in (("sum", "Sum"), ("min", "Min"), ("max", "Max")):
        if row.get(column) is not None:
            setattr(point, field, row[column])
    if table_name == HISTOGRAM:
        point.bucket_counts.extend(row["BucketCounts"] or ())
        point.explicit_bounds.extend(row["ExplicitBounds"] or ())
    elif table_name == SUMMARY:
        for quantile in row["ValueAtQuantiles"] or ():
            point.quantile_values.add(quantile=quantile["Quantile"], value=quantile["Value"])
    else:
        point.scale = row["Scale"] or 0
        point.zero_count = row["ZeroCount"] or 0
        point.zero_threshold = row["ZeroThreshold"] or 0.0
        point.positive.offset = row["PositiveOffset"] or 0
        point.positive.bucket_counts.extend(row["PositiveBucketCounts"] or ())
        point.negative.offset = row["NegativeOffset"] or 0
        point.negative.bucket_counts.extend(row["NegativeBucketCounts"] or ())


def _logs(rows: list[Row]) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for resource, resource_url, scope, scope_url, members in grouped(rows):
        above = request.resource_logs.add(resource=resource, schema_url=resource_url)
        under = above.scope_logs.add(scope=scope, schema_url=scope_url)
        under.log_records.extend(_log_record(row) for row in members)
    return request


def _log_record(row: Row) -> LogRecord:
    record = LogRecord(
        time_unix_nano=unsigned(row["TimestampUnixNano"]),
        observed_time_unix_nano=unsigned(row["ObservedTimestampUnixNano"]),
        severity_number=SeverityNumber.ValueType(row["SeverityNumber"] or 0),
        severity_text=row["SeverityText"] or "",
        attributes=key_values(row["LogAttributes"], row["LogAttributeTypes"]),
        dropped_attributes_count=row["DroppedAttributesCount"] or 0,
        flags=row["TraceFlags"] or 0,
        trace_id=bytes.fromhex(row["TraceId"] or ""),
        span_id=bytes.fromhex(row["SpanId"] or ""),
        event_name=row["EventName"] or "",
    )
    if row["Body"] is not None:
        record.body.CopyFrom(any_value(row["Body"], row["BodyType"] or ""))
    return record

"""Duty 7: nothing that arrived is missing from the lake: every field of every message, over all three forms.

What is sent is made by walking the protocol's descriptors, and what is compared is recorded field by field: a field
that a newer version of the protocol adds makes this fail until somebody has decided where it is kept.
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from deltalake import DeltaTable
from google.protobuf.descriptor import Descriptor

from hubscope import semconv
from hubscope.lake_schema import (
    EXPONENTIAL_HISTOGRAM,
    GAUGE,
    HISTOGRAM,
    LOGS,
    PARTITION,
    ROLLUP,
    SUM,
    SUMMARY,
    TRACES,
)
from tests.collector.conftest import Collector
from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, Target
from tests.collector.everything import fill
from tests.collector.fuzz.mutations import to_json

# What the lake does not keep, and why.
NOT_KEPT = {
    "Resource.entity_refs": "entity references (development) point at resource attributes, which are kept",
    "AnyValue.string_value_strindex": "an index into the string table of profiles, which traces, metrics and logs lack",
    "KeyValue.key_strindex": "an index into the string table of profiles, which traces, metrics and logs lack",
}
SPAN_KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
STATUS_CODES = ("Unset", "Ok", "Error")
TABLES = {
    "gauge": GAUGE,
    "sum": SUM,
    "histogram": HISTOGRAM,
    "exponential_histogram": EXPONENTIAL_HISTOGRAM,
    "summary": SUMMARY,
}
Row = dict[str, Any]


class Seen:
    """A message that notes which of its fields are read."""

    compared: ClassVar[set[str]] = set()

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        field = self._message.DESCRIPTOR.fields_by_name[name]
        self.compared.add(f"{self._message.DESCRIPTOR.name}.{name}")
        value = getattr(self._message, name)
        if field.message_type is None:
            return list(value) if field.is_repeated else value
        return [Seen(member) for member in value] if field.is_repeated else Seen(value)

    def has(self, name: str) -> bool:
        return bool(self._message.HasField(name))

    def which(self, oneof: str) -> str | None:
        return self._message.WhichOneof(oneof)


def plain(value: Seen) -> tuple[Any, str]:
    """A value and the name of its type, as the documentation of the lake says."""
    kind = value.which("value")
    if kind is None:
        return "", "empty"
    held = getattr(value, kind)
    if kind == "string_value":
        return held, ""
    if kind == "bytes_value":
        return b64encode(held).decode(), "bytes"
    if kind == "bool_value":
        return str(held).lower(), "bool"
    if kind in ("int_value", "double_value"):
        return held, kind.removesuffix("_value")
    return inner(value), kind.removesuffix("_value")


def inner(value: Seen) -> Any:
    """A value inside another one, as its JSON says."""
    kind = value.which("value")
    if kind is None:
        return None
    held = getattr(value, kind)
    if kind == "array_value":
        return [inner(member) for member in held.values]
    if kind == "kvlist_value":
        return {pair.key: inner(pair.value) for pair in held.values}
    return {"bytesValue": b64encode(held).decode()} if kind == "bytes_value" else held


def attributes(pairs: list[Seen], values: str, types: str) -> Row:
    """Both maps of an attribute list."""
    read = {pair.key: plain(pair.value) for pair in pairs}
    return {values: {k: v for k, (v, _) in read.items()}, types: {k: t for k, (_, t) in read.items() if t}}


def maps(values: Any, types: Any) -> Row:
    """A map of the lake with its values read as their types say."""
    types = dict(types or ())
    read = {"int": int, "double": float, "array": json.loads, "kvlist": json.loads}
    return {key: read.get(types.get(key, ""), str)(text) for key, text in dict(values or ()).items()}


def above(resource: Seen, scope: Seen) -> Row:
    return {
        **attributes(resource.resource.attributes, "ResourceAttributes", "ResourceAttributeTypes"),
        "ResourceDroppedAttributesCount": resource.resource.dropped_attributes_count,
        "ResourceSchemaUrl": resource.schema_url,
        "ScopeName": scope.scope.name,
        "ScopeVersion": scope.scope.version,
        **attributes(scope.scope.attributes, "ScopeAttributes", "ScopeAttributeTypes"),
        "ScopeDroppedAttrCount": scope.scope.dropped_attributes_count,
        "ScopeSchemaUrl": scope.schema_url,
        "ServiceName": "",
    }


def span_rows(request: Seen) -> Iterator[tuple[str, Row]]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield (
                    TRACES,
                    {
                        **above(resource, scope),
                        "TraceId": span.trace_id.hex(),
                        "SpanId": span.span_id.hex(),
                        "ParentSpanId": span.parent_span_id.hex(),
                        "TraceState": span.trace_state,
                        "TraceFlags": span.flags,
                        "SpanName": span.name,
                        "SpanKind": SPAN_KINDS[span.kind],
                        "TimestampUnixNano": span.start_time_unix_nano,
                        "Duration": span.end_time_unix_nano - span.start_time_unix_nano,
                        **attributes(span.attributes, "SpanAttributes", "SpanAttributeTypes"),
                        "DroppedAttributesCount": span.dropped_attributes_count,
                        "DroppedEventsCount": span.dropped_events_count,
                        "DroppedLinksCount": span.dropped_links_count,
                        "StatusCode": STATUS_CODES[span.status.code],
                        "StatusMessage": span.status.message,
                        "Events": [
                            {
                                "TimestampUnixNano": event.time_unix_nano,
                                "Name": event.name,
                                **attributes(event.attributes, "Attributes", "AttributeTypes"),
                                "DroppedAttributesCount": event.dropped_attributes_count,
                            }
                            for event in span.events
                        ],
                        "Links": [
                            {
                                "TraceId": link.trace_id.hex(),
                                "SpanId": link.span_id.hex(),
                                "TraceState": link.trace_state,
                                **attributes(link.attributes, "Attributes", "AttributeTypes"),
                                "DroppedAttributesCount": link.dropped_attributes_count,
                                "Flags": link.flags,
                            }
                            for link in span.links
                        ],
                    },
                )


def log_rows(request: Seen) -> Iterator[tuple[str, Row]]:
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                body, body_type = plain(record.body)
                yield (
                    LOGS,
                    {
                        **above(resource, scope),
                        "TimestampUnixNano": record.time_unix_nano,
                        "ObservedTimestampUnixNano": record.observed_time_unix_nano,
                        "TraceId": record.trace_id.hex(),
                        "SpanId": record.span_id.hex(),
                        "TraceFlags": record.flags,
                        "SeverityText": record.severity_text,
                        "SeverityNumber": record.severity_number,
                        "Body": body,
                        "BodyType": body_type,
                        **attributes(record.attributes, "LogAttributes", "LogAttributeTypes"),
                        "DroppedAttributesCount": record.dropped_attributes_count,
                        "EventName": record.event_name,
                    },
                )


def number(holder: Seen) -> Row:
    if holder.which("value") == "as_int":
        return {"ValueInt": holder.as_int, "Value": float(holder.as_int)}
    return {"ValueInt": None, "Value": holder.as_double if holder.which("value") else None}


def optional(holder: Seen, name: str) -> Any:
    value = getattr(holder, name)
    return value if holder.has(name) else None


def exemplars(point: Seen) -> list[Row]:
    return [
        {
            **attributes(exemplar.filtered_attributes, "FilteredAttributes", "FilteredAttributeTypes"),
            "TimeUnixNano": exemplar.time_unix_nano,
            **number(exemplar),
            "SpanId": exemplar.span_id.hex(),
            "TraceId": exemplar.trace_id.hex(),
        }
        for exemplar in point.exemplars
    ]


def point_row(kind: str, data: Seen, point: Seen) -> Row:
    row: Row = {
        **attributes(point.attributes, "Attributes", "AttributeTypes"),
        "StartTimeUnixNano": point.start_time_unix_nano,
        "TimeUnixNano": point.time_unix_nano,
        "Flags": point.flags,
    }
    if kind == "summary":
        quantiles = [{"Quantile": one.quantile, "Value": one.value} for one in point.quantile_values]
        return {**row, "Count": point.count, "Sum": point.sum, "ValueAtQuantiles": quantiles}
    row["Exemplars"] = exemplars(point)
    if kind != "gauge":
        row["AggregationTemporality"] = data.aggregation_temporality
    if kind in ("gauge", "sum"):
        return {**row, **number(point), **({"IsMonotonic": data.is_monotonic} if kind == "sum" else {})}
    row |= {"Count": point.count, **{name.title(): optional(point, name) for name in ("sum", "min", "max")}}
    if kind == "histogram":
        return {**row, "BucketCounts": point.bucket_counts, "ExplicitBounds": point.explicit_bounds}
    return {
        **row,
        "Scale": point.scale,
        "ZeroCount": point.zero_count,
        "ZeroThreshold": point.zero_threshold,
        "PositiveOffset": point.positive.offset,
        "PositiveBucketCounts": point.positive.bucket_counts,
        "NegativeOffset": point.negative.offset,
        "NegativeBucketCounts": point.negative.bucket_counts,
    }


def metric_rows(request: Seen) -> Iterator[tuple[str, Row]]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.which("data")
                data = getattr(metric, kind or "gauge")
                for point in data.data_points:
                    metadata = {pair.key: plain(pair.value) for pair in metric.metadata}
                    yield (
                        TABLES[kind or "gauge"],
                        {
                            **above(resource, scope),
                            "MetricName": metric.name,
                            "MetricDescription": metric.description,
                            "MetricUnit": metric.unit,
                            "MetricMetadata": {key: value for key, (value, _) in metadata.items()},
                            "metadata types": {key: kind for key, (_, kind) in metadata.items() if kind},
                            **point_row(kind or "gauge", data, point),
                        },
                    )


ROWS: dict[str, Callable[[Seen], Iterator[tuple[str, Row]]]] = {
    "traces": span_rows,
    "metrics": metric_rows,
    "logs": log_rows,
}


def requests_of_everything() -> list[tuple[str, Any]]:
    """Requests that together have each member of each oneof, metrics without the optional fields too."""
    chance = random.Random(11)
    found = []
    for name, signal in SIGNALS.items():
        for index in range(24):
            request = fill(signal.request(), chance, repeat=1 + index % 2)
            if name == "metrics" and index % 3 == 0:
                _without_optional(request, zero=index % 2 == 0)
            found.append((name, request))
    return found


def _without_optional(message: Any, zero: bool) -> None:
    """Every `optional` field absent, or zero: the two are not the same."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for member in value if field.is_repeated else (value,):
                _without_optional(member, zero)
        elif field.containing_oneof is not None and len(field.containing_oneof.fields) == 1:
            message.ClearField(field.name) if not zero else setattr(message, field.name, 0)


def fields_of(descriptor: Descriptor, known: set[str] | None = None) -> set[str]:
    """Every field that a message and those in it can have."""
    known = set() if known is None else known
    for field in descriptor.fields:
        name = f"{descriptor.name}.{field.name}"
        if name not in known and name not in NOT_KEPT:
            known.add(name)
            if field.message_type is not None:
                fields_of(field.message_type, known)
    return known


def read_back(row: Row) -> Row:
    """A row of the lake as the rows above are written: maps by their types, without what is derived from the rest."""
    found: Row = {}
    for column, value in row.items():
        types = column.replace("Attributes", "AttributeTypes")
        if column == "MetricMetadata":
            pairs, prefix = dict(value), "hub.type."
            kinds = {key.removeprefix(prefix): kind for key, kind in pairs.items() if key.startswith(prefix)}
            found["metadata types"] = kinds
            found[column] = maps({key: text for key, text in pairs.items() if not key.startswith(prefix)}, kinds)
        elif types != column and types in row:
            found[column] = maps(value, row[types])
        elif column.endswith("AttributeTypes"):
            found[column] = dict(value or ())
        elif column in ("Events", "Links", "Exemplars"):
            found[column] = [read_back(member) for member in value]
        elif column == "Body":
            found[column] = maps({"b": value}, {"b": row["BodyType"]})["b"]
        elif column not in (PARTITION, "Timestamp", "TimeUnix", "StartTimeUnix", *semconv.HOT_COLUMNS.values()):
            found[column] = value
    return found


def comparable(row: Row) -> str:
    return json.dumps(row, sort_keys=True)


def test_every_field_of_every_signal_is_in_the_lake(tmp_path: Path) -> None:
    """One of everything, sent over gRPC, HTTP/protobuf and HTTP/JSON, is read back from the lake field by field."""
    (tmp_path / "c").mkdir()
    collector = Collector(tmp_path / "c" / "lake")
    collector.start()
    expected: dict[str, list[str]] = {}
    possible: set[str] = set()
    Seen.compared.clear()
    try:
        target = Target(*(int(collector.addresses[name].rsplit(":", 1)[1]) for name in ("grpc", "http")))
        for index, (name, request) in enumerate(requests_of_everything()):
            signal = SIGNALS[name]
            possible |= fields_of(request.DESCRIPTOR)
            if index % 3 == 0:
                target.export(request.SerializeToString(), signal)
            elif index % 3 == 1:
                assert target.post(request.SerializeToString(), PROTOBUF, path=signal.path).code == 200
            else:
                assert target.post(to_json(request), JSON, path=signal.path).code == 200
            for table, row in ROWS[name](Seen(request)):
                expected.setdefault(table, []).append(comparable(row))
        assert collector.stop() == 0, collector.output
    finally:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all()
    assert possible - Seen.compared == set(), "fields that nobody keeps: decide where, or say why not in NOT_KEPT"
    assert set(expected) == {TRACES, LOGS, *TABLES.values()} - {ROLLUP}  # made of the others
    for table, rows in expected.items():
        lake = DeltaTable(str(collector.lake / table)).to_pyarrow_table().to_pylist()
        found = [comparable(read_back(row)) for row in lake if not row["ScopeName"].startswith("hubscope")]
        assert sorted(found) == sorted(rows), table

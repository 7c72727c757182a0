"""What arrives as OTLP stands in the lake's rows, field by field."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp import decode_common
from hubscope.collector.otlp.decode import decode
from hubscope.collector.otlp.decode_values import text_of
from hubscope.collector.otlp.encode import any_value, encode_derived
from hubscope.errors import BadInputError, PermanentError
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, LOGS, SCHEMAS, SUM, SUMMARY, TRACES

INT64_MAX = (1 << 63) - 1
EXAMPLES = settings(max_examples=35, deadline=None)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
int64s = st.integers(-(1 << 63), INT64_MAX)
uint64s = st.integers(0, (1 << 64) - 1)
uint32s = st.integers(0, (1 << 32) - 1)
doubles = st.floats(width=64)


def _value(kind: str, value: Any) -> AnyValue:
    return AnyValue(**{kind: value})


def _array(members: list[AnyValue]) -> AnyValue:
    answer = AnyValue()
    answer.array_value.SetInParent()
    answer.array_value.values.extend(members)
    return answer


def _kvlist(members: dict[str, AnyValue]) -> AnyValue:
    answer = AnyValue()
    answer.kvlist_value.SetInParent()
    for key, member in members.items():
        answer.kvlist_value.values.add(key=key).value.CopyFrom(member)
    return answer


scalars = st.one_of(
    st.builds(_value, st.just("string_value"), texts),
    st.builds(_value, st.just("bool_value"), st.booleans()),
    st.builds(_value, st.just("int_value"), int64s),
    st.builds(_value, st.just("double_value"), doubles),
    st.builds(_value, st.just("bytes_value"), st.binary(max_size=8)),
    st.just(AnyValue()),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=3)),
        st.builds(_kvlist, st.dictionaries(texts, inner, max_size=3)),
    ),
    max_leaves=6,
)
attribute_lists = st.builds(
    lambda d: [KeyValue(key=k, value=v) for k, v in d.items()], st.dictionaries(texts, values, max_size=4)
)
resources = st.builds(Resource, attributes=attribute_lists, dropped_attributes_count=uint32s)
scopes = st.builds(
    InstrumentationScope, name=texts, version=texts, attributes=attribute_lists, dropped_attributes_count=uint32s
)
events = st.builds(
    Span.Event, time_unix_nano=uint64s, name=texts, attributes=attribute_lists, dropped_attributes_count=uint32s
)
links = st.builds(
    Span.Link,
    trace_id=st.binary(max_size=16),
    span_id=st.binary(max_size=8),
    trace_state=texts,
    attributes=attribute_lists,
    dropped_attributes_count=uint32s,
    flags=uint32s,
)
spans = st.builds(
    Span,
    trace_id=st.binary(max_size=16),
    span_id=st.binary(max_size=8),
    parent_span_id=st.binary(max_size=8),
    trace_state=texts,
    name=texts,
    kind=st.integers(0, 5),
    start_time_unix_nano=uint64s,
    end_time_unix_nano=uint64s,
    attributes=attribute_lists,
    dropped_attributes_count=uint32s,
    events=st.lists(events, max_size=2),
    dropped_events_count=uint32s,
    links=st.lists(links, max_size=2),
    dropped_links_count=uint32s,
    status=st.one_of(st.none(), st.builds(Status, message=texts, code=st.integers(0, 2))),
    flags=uint32s,
)
log_records = st.builds(
    LogRecord,
    time_unix_nano=uint64s,
    observed_time_unix_nano=uint64s,
    severity_number=st.integers(0, 24),
    severity_text=texts,
    body=st.one_of(st.none(), values),
    attributes=attribute_lists,
    dropped_attributes_count=uint32s,
    flags=uint32s,
    trace_id=st.binary(max_size=16),
    span_id=st.binary(max_size=8),
    event_name=texts,
)


def _nested(draw: Any, request: Any, name: str, rows: Any) -> Any:
    """A request with some resources of some scopes of some rows."""
    for _ in range(draw(st.integers(0, 2))):
        above = getattr(request, f"resource_{name}").add(schema_url=draw(texts))
        if draw(st.booleans()):
            above.resource.CopyFrom(draw(resources))
        for _ in range(draw(st.integers(0, 2))):
            under = getattr(above, f"scope_{name}").add(schema_url=draw(texts))
            if draw(st.booleans()):
                under.scope.CopyFrom(draw(scopes))
            field = {"spans": "spans", "logs": "log_records", "metrics": "metrics"}[name]
            getattr(under, field).extend(draw(st.lists(rows, max_size=3)))
    return request


@st.composite
def trace_requests(draw: Any) -> ExportTraceServiceRequest:
    return _nested(draw, ExportTraceServiceRequest(), "spans", spans)


@st.composite
def log_requests(draw: Any) -> ExportLogsServiceRequest:
    return _nested(draw, ExportLogsServiceRequest(), "logs", log_records)


exemplars = st.builds(
    lambda number, **rest: Exemplar(**rest, **number),
    number=st.one_of(
        st.just({}), st.fixed_dictionaries({"as_int": int64s}), st.fixed_dictionaries({"as_double": doubles})
    ),
    filtered_attributes=attribute_lists,
    time_unix_nano=uint64s,
    span_id=st.binary(max_size=8),
    trace_id=st.binary(max_size=16),
)


@st.composite
def metrics(draw: Any) -> Metric:
    metric = Metric(name=draw(texts), description=draw(texts), unit=draw(texts), metadata=draw(attribute_lists))
    kind = draw(st.sampled_from(["gauge", "sum", "histogram", "exponential_histogram", "summary", ""]))
    if not kind:
        return metric
    data = getattr(metric, kind)
    data.SetInParent()
    if kind in ("sum", "histogram", "exponential_histogram"):
        data.aggregation_temporality = draw(st.integers(0, 2))
    if kind == "sum":
        data.is_monotonic = draw(st.booleans())
    for _ in range(draw(st.integers(0, 2))):
        point = data.data_points.add(
            start_time_unix_nano=draw(uint64s),
            time_unix_nano=draw(uint64s),
            attributes=draw(attribute_lists),
            flags=draw(uint32s),
        )
        if kind in ("gauge", "sum"):
            number = draw(st.sampled_from(["as_int", "as_double", ""]))
            if number:
                setattr(point, number, draw(int64s if number == "as_int" else doubles))
        else:
            point.count = draw(uint64s)
        if kind != "summary":
            point.exemplars.extend(draw(st.lists(exemplars, max_size=2)))
        if kind in ("histogram", "exponential_histogram"):
            for optional in ("sum", "min", "max"):
                if draw(st.booleans()):
                    setattr(point, optional, draw(doubles))
        if kind == "histogram":
            point.bucket_counts.extend(draw(st.lists(uint64s, max_size=3)))
            point.explicit_bounds.extend(draw(st.lists(doubles, max_size=3)))
        elif kind == "exponential_histogram":
            point.scale = draw(st.integers(-10, 20))
            point.zero_count = draw(uint64s)
            point.zero_threshold = draw(doubles)
            for side in (point.positive, point.negative):
                if draw(st.booleans()):
                    side.offset = draw(st.integers(-(1 << 31), (1 << 31) - 1))
                    side.bucket_counts.extend(draw(st.lists(uint64s, max_size=3)))
        elif kind == "summary":
            point.sum = draw(doubles)
            for _ in range(draw(st.integers(0, 2))):
                point.quantile_values.add(quantile=draw(doubles), value=draw(doubles))
    return metric


@st.composite
def metric_requests(draw: Any) -> ExportMetricsServiceRequest:
    return _nested(draw, ExportMetricsServiceRequest(), "metrics", metrics())


def rows_of(signal: Signal, *requests: Any) -> dict[str, list[dict[str, Any]]]:
    tables = decode([Record(signal, request.SerializeToString(), 1) for request in requests])
    for name, table in tables.items():
        assert table.schema.equals(SCHEMAS[name])
        table.validate(full=True)
    return {name: table.to_pylist() for name, table in tables.items()}


def same_number(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return (math.isnan(one) and math.isnan(other)) or (
        one == other and math.copysign(1, one) == math.copysign(1, other)
    )


def exact(row: dict[str, Any], attributes: str, column: str) -> int:
    """The number a column stands for, also where an int64 could not hold it."""
    extra = dict(row[attributes]).get(f"hub.exact.{column}")
    assert (row.get(column) == INT64_MAX) if extra else True
    return int(extra) if extra else row[column]


def comparable(value: AnyValue) -> Any:
    """A value as something that compares equal for equal values, NaN and -0.0 included; objects by their last keys."""
    kind = value.WhichOneof("value")
    if kind == "double_value":
        return kind, str(value.double_value)
    if kind == "array_value":
        return kind, [comparable(member) for member in value.array_value.values]
    if kind == "kvlist_value":
        return kind, {pair.key: comparable(pair.value) for pair in value.kvlist_value.values}
    return (kind, getattr(value, kind)) if kind else (None, None)


def check_attributes(sent: Any, stored: Any, types: Any) -> None:
    stored = {key: text for key, text in stored if not key.startswith("hub.exact.")}
    types = dict(types)
    assert {pair.key for pair in sent} == set(stored)
    for pair in sent:
        type_name = types.get(pair.key, "")
        assert (stored[pair.key], type_name) == text_of(pair.value)
        assert comparable(any_value(stored[pair.key], type_name)) == comparable(pair.value)


def check_above(row: dict[str, Any], above: Any, under: Any) -> None:
    check_attributes(above.resource.attributes, row["ResourceAttributes"], row["ResourceAttributeTypes"])
    check_attributes(under.scope.attributes, row["ScopeAttributes"], row["ScopeAttributeTypes"])
    assert row["ResourceDroppedAttributesCount"] == above.resource.dropped_attributes_count
    assert row["ScopeDroppedAttrCount"] == under.scope.dropped_attributes_count
    assert (row["ResourceSchemaUrl"], row["ScopeSchemaUrl"]) == (above.schema_url, under.schema_url)
    assert (row["ScopeName"], row["ScopeVersion"]) == (under.scope.name, under.scope.version)


@EXAMPLES
@given(trace_requests(), trace_requests())
def test_every_field_of_a_span_is_read_back(one: ExportTraceServiceRequest, two: ExportTraceServiceRequest) -> None:
    """Every field of every span of two requests stands in its row, in the order they were sent."""
    rows = iter(rows_of(Signal.TRACES, one, two).get(TRACES, []))
    for above in [*one.resource_spans, *two.resource_spans]:
        for under in above.scope_spans:
            for span in under.spans:
                row = next(rows)
                check_above(row, above, under)
                check_attributes(span.attributes, row["SpanAttributes"], row["SpanAttributeTypes"])
                start = exact(row, "SpanAttributes", "TimestampUnixNano")
                extra = dict(row["SpanAttributes"]).get("hub.exact.EndTimeUnixNano")
                end = int(extra) if extra else row["TimestampUnixNano"] + row["Duration"]
                assert (start, end) == (span.start_time_unix_nano, span.end_time_unix_nano)
                assert row["TraceId"] == span.trace_id.hex()
                assert row["SpanId"] == span.span_id.hex()
                assert row["ParentSpanId"] == span.parent_span_id.hex()
                assert (row["TraceState"], row["SpanName"]) == (span.trace_state, span.name)
                assert row["SpanKind"] == Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").capitalize()
                status = Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").capitalize()
                assert (row["StatusCode"], row["StatusMessage"]) == (status, span.status.message)
                assert row["TraceFlags"] == span.flags
                assert row["DroppedAttributesCount"] == span.dropped_attributes_count
                assert row["DroppedEventsCount"] == span.dropped_events_count
                assert row["DroppedLinksCount"] == span.dropped_links_count
                assert len(row["Events"]) == len(span.events)
                assert len(row["Links"]) == len(span.links)
                for event, stored in zip(span.events, row["Events"], strict=True):
                    check_attributes(event.attributes, stored["Attributes"], stored["AttributeTypes"])
                    assert exact(stored, "Attributes", "TimestampUnixNano") == event.time_unix_nano
                    assert stored["Name"] == event.name
                    assert stored["DroppedAttributesCount"] == event.dropped_attributes_count
                for link, stored in zip(span.links, row["Links"], strict=True):
                    check_attributes(link.attributes, stored["Attributes"], stored["AttributeTypes"])
                    assert (stored["TraceId"], stored["SpanId"]) == (link.trace_id.hex(), link.span_id.hex())
                    assert (stored["TraceState"], stored["Flags"]) == (link.trace_state, link.flags)
                    assert stored["DroppedAttributesCount"] == link.dropped_attributes_count
    assert next(rows, None) is None


@EXAMPLES
@given(log_requests())
def test_every_field_of_a_log_record_is_read_back(request: ExportLogsServiceRequest) -> None:
    """Every field of every log record stands in its row, the body of any kind with its type."""
    rows = iter(rows_of(Signal.LOGS, request).get(LOGS, []))
    for above in request.resource_logs:
        for under in above.scope_logs:
            for record in under.log_records:
                row = next(rows)
                check_above(row, above, under)
                check_attributes(record.attributes, row["LogAttributes"], row["LogAttributeTypes"])
                assert exact(row, "LogAttributes", "TimestampUnixNano") == record.time_unix_nano
                assert exact(row, "LogAttributes", "ObservedTimestampUnixNano") == record.observed_time_unix_nano
                if record.HasField("body"):
                    assert comparable(any_value(row["Body"], row["BodyType"])) == comparable(record.body)
                else:
                    assert (row["Body"], row["BodyType"]) == (None, "empty")
                assert (row["TraceId"], row["SpanId"]) == (record.trace_id.hex(), record.span_id.hex())
                assert (row["SeverityNumber"], row["SeverityText"]) == (record.severity_number, record.severity_text)
                assert (row["TraceFlags"], row["EventName"]) == (record.flags, record.event_name)
                assert row["DroppedAttributesCount"] == record.dropped_attributes_count
    assert next(rows, None) is None


def check_value(sent: Any, row: dict[str, Any]) -> None:
    kind = sent.WhichOneof("value")
    assert row["ValueInt"] == (sent.as_int if kind == "as_int" else None)
    expected = float(sent.as_int) if kind == "as_int" else sent.as_double if kind else None
    assert same_number(row["Value"], expected)


def check_exemplars(point: Any, row: dict[str, Any]) -> None:
    assert len(row["Exemplars"]) == len(point.exemplars)
    for exemplar, stored in zip(point.exemplars, row["Exemplars"], strict=True):
        check_attributes(exemplar.filtered_attributes, stored["FilteredAttributes"], stored["FilteredAttributeTypes"])
        assert exact(stored, "FilteredAttributes", "TimeUnixNano") == exemplar.time_unix_nano
        assert (stored["SpanId"], stored["TraceId"]) == (exemplar.span_id.hex(), exemplar.trace_id.hex())
        check_value(exemplar, stored)


def counts(row: dict[str, Any], column: str) -> list[int]:
    extra = dict(row["Attributes"]).get(f"hub.exact.{column}")
    return json.loads(extra) if extra else row[column]


TABLES = {
    "gauge": GAUGE,
    "sum": SUM,
    "histogram": HISTOGRAM,
    "exponential_histogram": EXPONENTIAL_HISTOGRAM,
    "summary": SUMMARY,
}


@EXAMPLES
@given(metric_requests())
def test_every_field_of_a_data_point_is_read_back(request: ExportMetricsServiceRequest) -> None:
    """Every field of every point of all five kinds stands in its row, exemplars and optional numbers included."""
    rows = {name: iter(found) for name, found in rows_of(Signal.METRICS, request).items()}
    for above in request.resource_metrics:
        for under in above.scope_metrics:
            for metric in under.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                data = getattr(metric, kind)
                for point in data.data_points:
                    row = next(rows[TABLES[kind]])
                    check_above(row, above, under)
                    check_attributes(point.attributes, row["Attributes"], row["AttributeTypes"])
                    metadata = {p.key: text_of(p.value) for p in metric.metadata}
                    types = {f"hub.type.{key}": kind for key, (_, kind) in metadata.items() if kind}
                    assert dict(row["MetricMetadata"]) == {key: text for key, (text, _) in metadata.items()} | types
                    assert row["MetricName"] == metric.name
                    assert (row["MetricDescription"], row["MetricUnit"]) == (metric.description, metric.unit)
                    assert exact(row, "Attributes", "StartTimeUnixNano") == point.start_time_unix_nano
                    assert exact(row, "Attributes", "TimeUnixNano") == point.time_unix_nano
                    assert row["Flags"] == point.flags
                    if kind in ("gauge", "sum"):
                        check_value(point, row)
                    else:
                        assert exact(row, "Attributes", "Count") == point.count
                    if kind != "summary":
                        check_exemplars(point, row)
                    if kind in ("sum", "histogram", "exponential_histogram"):
                        assert row["AggregationTemporality"] == data.aggregation_temporality
                    if kind == "sum":
                        assert row["IsMonotonic"] == data.is_monotonic
                    if kind in ("histogram", "exponential_histogram"):
                        for column, field in (("Sum", "sum"), ("Min", "min"), ("Max", "max")):
                            sent = getattr(point, field) if point.HasField(field) else None
                            assert same_number(row[column], sent)
                    if kind == "histogram":
                        assert counts(row, "BucketCounts") == list(point.bucket_counts)
                        assert len(row["ExplicitBounds"]) == len(point.explicit_bounds)
                        assert all(map(same_number, row["ExplicitBounds"], point.explicit_bounds))
                    elif kind == "exponential_histogram":
                        assert (row["Scale"], row["PositiveOffset"]) == (point.scale, point.positive.offset)
                        assert row["NegativeOffset"] == point.negative.offset
                        assert exact(row, "Attributes", "ZeroCount") == point.zero_count
                        assert same_number(row["ZeroThreshold"], point.zero_threshold)
                        assert counts(row, "PositiveBucketCounts") == list(point.positive.bucket_counts)
                        assert counts(row, "NegativeBucketCounts") == list(point.negative.bucket_counts)
                    elif kind == "summary":
                        assert same_number(row["Sum"], point.sum)
                        stored = row["ValueAtQuantiles"]
                        assert len(stored) == len(point.quantile_values)
                        for sent, kept in zip(point.quantile_values, stored, strict=True):
                            assert same_number(kept["Quantile"], sent.quantile)
                            assert same_number(kept["Value"], sent.value)
    assert all(next(rest, None) is None for rest in rows.values())


def one_span(**fields: Any) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(**fields)
    return request


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def test_a_key_sent_twice_keeps_its_last_value() -> None:
    """A list with a key twice becomes a map with that key once, so that DuckDB can read it."""
    attributes = [text("a", "1"), text("b", "2"), KeyValue(key="a", value=AnyValue(int_value=3))]
    row = rows_of(Signal.TRACES, one_span(attributes=attributes), one_span(attributes=[text("a", "x")]))[TRACES]
    assert dict(row[0]["SpanAttributes"]) == {"b": "2", "a": "3"}
    assert len(row[0]["SpanAttributes"]) == 2
    assert row[0]["SpanAttributeTypes"] == [("a", "int")]
    assert row[1]["SpanAttributes"] == [("a", "x")]


def test_hot_attributes_fill_their_columns() -> None:
    """A hot attribute stands in its column, the service's from the resource; an absent one is null there."""
    request = one_span(attributes=[text("hub.plugin.id", "p"), text("db.query.summary", "SELECT t")])
    request.resource_spans[0].resource.attributes.extend(
        [text("service.name", "hub"), text("service.version", "2"), text("service.instance.id", "i")]
    )
    row = rows_of(Signal.TRACES, request)[TRACES][0]
    assert (row["ServiceName"], row["ServiceVersion"], row["ServiceInstanceId"]) == ("hub", "2", "i")
    assert (row["PluginId"], row["DbQuerySummary"], row["PluginHook"]) == ("p", "SELECT t", None)


def test_no_service_name_is_an_empty_one() -> None:
    """Where the resource names no service, `ServiceName` is '', as in the ClickHouse exporter's table."""
    assert rows_of(Signal.TRACES, one_span(name="s"))[TRACES][0]["ServiceName"] == ""


def test_the_partition_is_the_utc_day_of_the_start() -> None:
    """A span of the last nanosecond of a day stands in that day, with its time cut to microseconds."""
    row = rows_of(Signal.TRACES, one_span(start_time_unix_nano=1_767_225_599_999_999_999))[TRACES][0]
    assert row["Date"].isoformat() == "2025-12-31"
    assert row["Timestamp"].isoformat() == "2025-12-31T23:59:59.999999+00:00"
    assert row["TimestampUnixNano"] == 1_767_225_599_999_999_999


def test_a_clock_that_went_back_gives_a_negative_duration() -> None:
    """An end before the start is stored as it was sent."""
    row = rows_of(Signal.TRACES, one_span(start_time_unix_nano=1000, end_time_unix_nano=400))[TRACES][0]
    assert row["Duration"] == -600


def test_an_unknown_kind_is_its_number() -> None:
    """A span kind of a newer protocol is kept as decimal text."""
    rows = rows_of(Signal.TRACES, one_span(kind=17), one_span(kind=2))[TRACES]
    assert [row["SpanKind"] for row in rows] == ["17", "Server"]


def test_a_log_without_time_takes_the_time_it_was_observed() -> None:
    """`Timestamp` and the partition come from the observed time; the sent time stays 0."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(observed_time_unix_nano=86_400_000_000_000)
    row = rows_of(Signal.LOGS, request)[LOGS][0]
    assert (row["Date"].isoformat(), row["TimestampUnixNano"]) == ("1970-01-02", 0)


def test_a_oneof_sent_twice_counts_its_last_kind() -> None:
    """Bytes with two kinds in one value, which protobuf allows, are read as protobuf reads them."""

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    both = AnyValue(string_value="s").SerializeToString() + AnyValue(int_value=3).SerializeToString()
    payload = field(1, field(2, field(2, field(9, field(1, b"k") + field(2, both)))))
    row = decode([Record(Signal.TRACES, payload, 1)])[TRACES].to_pylist()[0]
    assert (row["SpanAttributes"], row["SpanAttributeTypes"]) == ([("k", "3")], [("k", "int")])


def test_packed_numbers_may_come_in_pieces() -> None:
    """A packed list split in two on the wire is read whole."""

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    def eight(*numbers: int) -> bytes:
        return b"".join(n.to_bytes(8, "little") for n in numbers)

    point = field(6, eight(1, 2)) + field(6, eight(3))
    payload = field(1, field(2, field(2, field(1, b"h") + field(9, field(1, point)))))
    metric = ExportMetricsServiceRequest.FromString(payload).resource_metrics[0].scope_metrics[0].metrics[0]
    assert list(metric.histogram.data_points[0].bucket_counts) == [1, 2, 3]
    row = decode([Record(Signal.METRICS, payload, 1)])[HISTOGRAM].to_pylist()[0]
    assert row["BucketCounts"] == [1, 2, 3]


def test_deep_nesting_is_read() -> None:
    """A value 40 lists deep (of the parser's 100 levels, two a list) becomes 40 brackets."""
    value = AnyValue(int_value=1)
    for _ in range(40):
        value = _array([value])
    row = rows_of(Signal.TRACES, one_span(attributes=[KeyValue(key="k", value=value)]))[TRACES][0]
    assert dict(row["SpanAttributes"])["k"] == "[" * 40 + "1" + "]" * 40


def test_bytes_that_are_no_request_are_refused() -> None:
    """Bytes that protobuf cannot read are an error of the input, not a crash."""
    with pytest.raises(BadInputError, match="not an OTLP traces request"):
        decode([Record(Signal.TRACES, b"\xff\xff", 1)])


def test_large_resources_over_many_spans_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose resource, repeated on every row, would fill the memory is refused by its size."""
    monkeypatch.setattr(decode_common, "MAX_REPEATED_BYTES", 10_000)
    request = one_span(name="s")
    request.resource_spans[0].resource.attributes.append(text("k", "x" * 1000))
    decode([Record(Signal.TRACES, request.SerializeToString(), 1)])
    for _ in range(10):
        request.resource_spans[0].scope_spans[0].spans.add()
    with pytest.raises(BadInputError, match="repeated on each of its 11 rows"):
        decode([Record(Signal.TRACES, request.SerializeToString(), 1)])


def test_requests_of_several_groups_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of requests decoded one after the other give one table in the order of the records."""
    monkeypatch.setattr("hubscope.collector.otlp.decode.GROUP_BYTES", 20)
    rows = rows_of(Signal.TRACES, *[one_span(name=f"span {n}") for n in range(20)])[TRACES]
    assert [row["SpanName"] for row in rows] == [f"span {n}" for n in range(20)]


def test_no_records_give_no_tables() -> None:
    """Empty requests and no requests give no rows, and no error."""
    assert decode([]) == {}
    assert decode([Record(signal, b"", 1) for signal in Signal]) == {}


def test_the_schema_is_the_lakes() -> None:
    """The rows of each table have exactly the lake's columns, in their order."""
    table = decode([Record(Signal.TRACES, one_span(name="x").SerializeToString(), 1)])[TRACES]
    assert isinstance(table, pa.Table)
    assert table.schema.equals(SCHEMAS[TRACES])


@EXAMPLES
@given(metric_requests(), log_requests())
def test_rows_go_out_as_otlp_and_come_back_the_same(
    metrics_request: ExportMetricsServiceRequest, logs_request: ExportLogsServiceRequest
) -> None:
    """Rows encoded for a forwarder decode to the same rows, whatever their order."""
    records = [
        Record(Signal.METRICS, metrics_request.SerializeToString(), 1),
        Record(Signal.LOGS, logs_request.SerializeToString(), 1),
    ]
    tables = decode(records)
    again = decode(encode_derived(tables, 1))
    assert set(again) == set(tables)
    for name, table in tables.items():
        assert sorted(map(repr, again[name].to_pylist())) == sorted(map(repr, table.to_pylist()))


def test_derived_spans_cannot_be_forwarded() -> None:
    """A processor that derives spans is told that a forwarder cannot send them."""
    with pytest.raises(PermanentError, match=TRACES):
        encode_derived(decode([Record(Signal.TRACES, one_span(name="x").SerializeToString(), 1)]), 1)


@pytest.mark.parametrize("unknown", [b"\x7b\x00\x00\x7c", b"\x7b\x02\x00\x7c", b"\x7b\x7c", b"\xf8\x3f\x01"])
def test_unknown_fields_of_any_form_are_passed_over(unknown: bytes) -> None:
    """What the front's parser passes over as unknown, an odd group among it, keeps no record out of the lake."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(severity_text="kept")
    table = decode([Record(Signal.LOGS, request.SerializeToString() + unknown, 1)])[LOGS]
    assert table["SeverityText"].to_pylist() == ["kept"]

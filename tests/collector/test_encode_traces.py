"""Spans back to OTLP, and resource attributes on the wire: what goes out is what came in."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.collector.otlp.encode_traces import encode_spans
from hubscope.collector.otlp.enrich import with_resource_attributes

texts = st.text("aäb", max_size=4)
int64s = st.integers(-(1 << 63), (1 << 63) - 1)
uint64s = st.integers(0, (1 << 64) - 1)
values = st.one_of(
    st.builds(AnyValue, string_value=texts), st.builds(AnyValue, int_value=int64s), st.just(AnyValue()),
    st.builds(AnyValue, double_value=st.floats(allow_nan=False)),
    st.builds(AnyValue, bytes_value=st.binary(max_size=4)), st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(lambda v: AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=v)])), texts),
)  # fmt: skip
attributes = st.dictionaries(texts, values, max_size=3).map(
    lambda found: [KeyValue(key=key, value=value) for key, value in found.items()]
)
events = st.builds(Span.Event, time_unix_nano=uint64s, name=texts, attributes=attributes)
links = st.builds(
    Span.Link, trace_id=st.binary(max_size=16), span_id=st.binary(max_size=8), trace_state=texts, attributes=attributes
)
spans = st.builds(
    Span,
    trace_id=st.binary(max_size=16),
    span_id=st.binary(max_size=8),
    parent_span_id=st.binary(max_size=8),
    trace_state=texts,
    name=texts,
    kind=st.integers(0, 7),
    start_time_unix_nano=uint64s,
    end_time_unix_nano=uint64s,
    attributes=attributes,
    events=st.lists(events, max_size=2),
    links=st.lists(links, max_size=2),
    flags=st.integers(0, (1 << 32) - 1),
    dropped_attributes_count=st.integers(0, 9),
    dropped_events_count=st.integers(0, 9),
    dropped_links_count=st.integers(0, 9),
    status=st.one_of(st.none(), st.builds(Status, message=texts, code=st.integers(1, 2))),
)


def _rows(payload: bytes) -> Any:
    return decode([Record(Signal.TRACES, payload, 1)])["otel_traces"]


@given(st.lists(spans, min_size=1, max_size=4), attributes, texts)
@settings(max_examples=60, deadline=None)
def test_rows_go_back_to_the_spans_they_were(members: list[Span], of_resource: Any, scope: str) -> None:
    """Every field of a span that became a row is in the span that is made of it."""
    request = ExportTraceServiceRequest()
    above = request.resource_spans.add(schema_url="r")
    above.resource.attributes.extend(of_resource)
    under = above.scope_spans.add(schema_url="s")
    under.scope.name = scope
    under.spans.extend(members)
    rows = _rows(request.SerializeToString())
    [record] = encode_spans(rows, 7)
    again = ExportTraceServiceRequest.FromString(record.payload)
    assert again.resource_spans[0].resource.attributes == above.resource.attributes
    found = again.resource_spans[0].scope_spans[0].spans
    assert len(found) == len(members)
    for span, sent in zip(found, members, strict=True):
        assert sorted(map(str, span.attributes)) == sorted(map(str, sent.attributes))
        for message in (span, sent):
            del message.attributes[:]
        assert (span.status.code, span.status.message) == (sent.status.code, sent.status.message)
        for message in (span, sent):
            message.ClearField("status")
        assert span == sent


@given(st.lists(attributes, min_size=1, max_size=3), st.dictionaries(texts, texts, max_size=3))
@settings(max_examples=60, deadline=None)
def test_attributes_on_the_wire_are_those_of_the_message(resources: list[Any], added: dict[str, str]) -> None:
    """The bytes are those of the request with the attributes that a resource had not; the spans stay as they are."""
    request = ExportTraceServiceRequest()
    for of_resource in resources:
        above = request.resource_spans.add(schema_url="u" * 200)
        above.resource.attributes.extend(of_resource)
        above.scope_spans.add().spans.add(name="s" * 300)
    found = ExportTraceServiceRequest.FromString(
        with_resource_attributes(request.SerializeToString(), tuple(added.items()))
    )
    for above in request.resource_spans:
        known = {pair.key for pair in above.resource.attributes}
        for key, text in added.items():
            if key not in known:
                above.resource.attributes.add(key=key).value.string_value = text
    assert found == request

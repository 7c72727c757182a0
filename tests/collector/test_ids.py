"""Ids of a wrong length: found wherever OTLP has ids, named, counted, and refused with their whole request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Signal
from hubscope.collector.otlp.ids import check_ids
from hubscope.collector.otlp.large import LARGE_BYTES
from hubscope.collector.otlp.requests import KINDS, count_items
from hubscope.errors import BadInputError

REQUESTS = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
LENGTHS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}


def places(message: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every id that OTLP's own descriptors have under a message."""
    for field in message.fields:
        if field.name in LENGTHS:
            yield (*path, field.name)
        elif field.message_type is not None and field.name not in path and field.name != "value":
            yield from places(field.message_type, (*path, field.name))


EVERY_PLACE = [(signal, place) for signal, message in REQUESTS.items() for place in places(message.DESCRIPTOR)]


def request_with(signal: Signal, place: tuple[str, ...], values: list[bytes]) -> bytes:
    """A request with as many messages at a place as there are values of its id."""
    request = REQUESTS[signal]()
    above: Any = request
    for name in place[:-2]:
        field = getattr(above, name)
        above = field.add() if hasattr(field, "add") else field
    for value in values:
        setattr(getattr(above, place[-2]).add(), place[-1], value)
    return bytes(request.SerializeToString())


def test_there_are_places_to_look_at() -> None:
    """Spans, links, log records and the exemplars of four kinds of points have ids: 15 fields."""
    assert len(EVERY_PLACE) == 3 + 2 + 2 + 4 * 2


@pytest.mark.parametrize(("signal", "place"), EVERY_PLACE, ids=[".".join(place[2:]) for _, place in EVERY_PLACE])
def test_every_place_is_looked_at(signal: Signal, place: tuple[str, ...]) -> None:
    """Right and empty ids pass; wrong ones, one byte off too, are named with their field, their number and lengths."""
    right = LENGTHS[place[-1]]
    check_ids(REQUESTS[signal], request_with(signal, place, [b"x" * right, b"", bytes(right)]))
    for wrong in (1, right - 1, right + 1, 24 - right, 2 * right):
        payload = request_with(signal, place, [b"x" * right, b"y" * wrong, b"", b"z" * wrong])
        with pytest.raises(
            BadInputError, match=rf" with a {place[-1]} of {wrong} B instead of {right} B: 2\n"
        ) as caught:
            check_ids(REQUESTS[signal], payload)
        assert "16 B" in caught.value.remedy


def test_every_wrong_field_is_named() -> None:
    """Several mistakes of one request are told together."""
    request = ExportTraceServiceRequest()
    for _ in range(2):  # in resources and scopes of their own
        spans = request.resource_spans.add().scope_spans.add().spans
        spans.add(trace_id=b"1" * 32, span_id=b"2" * 8)
        spans.add(trace_id=b"1" * 16, span_id=b"2" * 16).links.add(trace_id=b"1" * 8, span_id=b"2" * 8)
    with pytest.raises(BadInputError) as caught:
        check_ids(ExportTraceServiceRequest, request.SerializeToString())
    assert caught.value.message == (
        "spans with a trace_id of 32 B instead of 16 B: 2; spans with a span_id of 16 B instead of 8 B: 2; "
        "links with a trace_id of 8 B instead of 16 B: 2"
    )


ids = st.sampled_from([0, 7, 8, 9, 15, 16, 17, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@given(st.lists(st.lists(st.tuples(ids, ids, ids, st.lists(st.tuples(ids, ids), max_size=2)), max_size=3), max_size=3))
def test_a_request_is_refused_for_wrong_ids_and_for_nothing_else(
    groups: list[list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]]],
) -> None:
    """Whatever spans and links a request has, in whatever groups: the verdict is that of looking at each id."""
    request = ExportTraceServiceRequest()
    wrong = 0
    for group in groups:
        spans = request.resource_spans.add().scope_spans.add().spans
        for trace_id, span_id, parent, links in group:
            span = spans.add(trace_id=trace_id, span_id=span_id, parent_span_id=parent, name="n")
            wrong += len(trace_id) not in (0, 16)
            wrong += sum(len(i) not in (0, 8) for i in (span_id, parent))
            for of_trace, of_span in links:
                span.links.add(trace_id=of_trace, span_id=of_span)
                wrong += (len(of_trace) not in (0, 16)) + (len(of_span) not in (0, 8))
    payload = request.SerializeToString()
    if not wrong:
        check_ids(ExportTraceServiceRequest, payload)
        return
    with pytest.raises(BadInputError) as caught:
        check_ids(ExportTraceServiceRequest, payload)
    assert sum(int(part.rpartition(": ")[2]) for part in caught.value.message.split("; ")) == wrong


@pytest.mark.parametrize("where", ["first", "last", "in a large span"])
def test_a_large_request_is_looked_at_in_pieces(where: str) -> None:
    """A request that is validated piece by piece has its ids looked at all the same, those of a cut span too."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(20_000):
        spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="x" * 40)
    large = spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, name="large")
    for _ in range(20_000):
        large.links.add(trace_id=b"1" * 16, span_id=b"2" * 8)
    assert request.ByteSize() > LARGE_BYTES
    assert count_items(KINDS[0], request.SerializeToString()) == 20_001
    if where == "in a large span":
        large.links[19_999].span_id = b"short"
        large.span_id = b"tiny"
        sentence = "spans with a span_id of 4 B instead of 8 B: 1; links with a span_id of 5 B instead of 8 B: 1"
    else:
        spans[0 if where == "first" else 19_999].trace_id = b"short"
        sentence = "spans with a trace_id of 5 B instead of 16 B: 1"
    with pytest.raises(BadInputError) as caught:
        count_items(KINDS[0], request.SerializeToString())
    assert caught.value.message == sentence

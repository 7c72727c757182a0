"""Attribute limits: what is too much is left out and counted, a megabyte comes back whole unless told otherwise."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import Decoded, decode_arriving
from hubscope.processors.attribute_limits import AttributeLimits
from hubscope.processors.options import AttributeLimitOptions


def _fill(owner: Any, count: int, text: str = "x") -> None:
    for number in range(count):
        owner.attributes.add(key=f"k{number}", value=AnyValue(string_value=text))


def _limited(
    request: Any, options: AttributeLimitOptions, signal: Signal = Signal.TRACES
) -> tuple[Decoded, dict[str, int]]:
    limits = AttributeLimits(options)
    return decode_arriving([Record(signal, request.SerializeToString(), 1)], [limits]), limits.counts()


@given(counts=st.lists(st.integers(0, 8), min_size=5, max_size=5), limit=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_first_attributes_stay_and_the_others_are_counted(counts: list[int], limit: int) -> None:
    """On spans, events, links, scopes and resources; whoever is below the bound is not touched."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    scope = resource.scope_spans.add()
    span = scope.spans.add(dropped_attributes_count=2)
    for owner, count in zip(
        (resource.resource, scope.scope, span, span.events.add(), span.links.add()), counts, strict=True
    ):
        _fill(owner, count)
    decoded, told = _limited(request, AttributeLimitOptions(count=limit))
    [row] = decoded.tables["otel_traces"].to_pylist()
    kept = [
        (row["ResourceAttributes"], row["ResourceDroppedAttributesCount"]),
        (row["ScopeAttributes"], row["ScopeDroppedAttrCount"]),
        (row["SpanAttributes"], row["DroppedAttributesCount"] - 2),
        (row["Events"][0]["Attributes"], row["Events"][0]["DroppedAttributesCount"]),
        (row["Links"][0]["Attributes"], row["Links"][0]["DroppedAttributesCount"]),
    ]
    for (attributes, dropped), count in zip(kept, counts, strict=True):
        assert [key for key, _ in attributes] == [f"k{number}" for number in range(min(count, limit))]
        assert dropped == max(0, count - limit)
    assert told["dropped"] == sum(max(0, count - limit) for count in counts)
    assert bool(decoded.changed) == (max(counts) > limit)


def test_a_megabyte_is_kept_by_default() -> None:
    """Without being told, no value is cut, and as many attributes stay as anybody sends on purpose."""
    request = ExportTraceServiceRequest()
    _fill(request.resource_spans.add().scope_spans.add().spans.add(), 1000)
    large = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="large")
    large.value.string_value = "ä" * 500_000
    decoded, told = _limited(request, AttributeLimitOptions())
    assert dict(decoded.tables["otel_traces"]["SpanAttributes"][0].as_py())["large"] == "ä" * 500_000
    assert (decoded.changed, told) == ({}, {"dropped": 0, "truncated": 0})


def test_long_values_are_cut_where_a_length_is_set() -> None:
    """Texts at their characters, bytes at their bytes, arrays at each member, maps at each value; numbers never."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.attributes.add(key="text", value=AnyValue(string_value="äöüß"))
    span.attributes.add(key="bytes", value=AnyValue(bytes_value=b"abcdef"))
    members = [AnyValue(string_value="long enough"), AnyValue(int_value=123_456)]
    span.attributes.add(key="list", value=AnyValue(array_value=ArrayValue(values=members)))
    span.attributes.add(key="number", value=AnyValue(int_value=123_456))
    decoded, told = _limited(request, AttributeLimitOptions(value_length=3))
    assert dict(decoded.tables["otel_traces"]["SpanAttributes"][0].as_py()) == {
        "text": "äöü", "bytes": "YWJj", "list": '["lon",123456]', "number": "123456",
    }  # fmt: skip
    assert told == {"dropped": 0, "truncated": 3}


def test_metric_points_are_exempt() -> None:
    """A series without one of its attributes would be another series."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    _fill(metric.gauge.data_points.add(as_int=1), 5, "a long text")
    decoded, told = _limited(request, AttributeLimitOptions(count=2, value_length=3), Signal.METRICS)
    assert len(decoded.tables["otel_metrics_gauge"]["Attributes"][0].as_py()) == 5
    assert told == {"dropped": 0, "truncated": 0}

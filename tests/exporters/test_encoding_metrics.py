"""Metrics written by our encoder say what the stock encoder's say, and one odd data point costs no other."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as stock
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Exemplar, MeterProvider
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.metrics import encode_metrics
from tests.exporters import encoding_items as items

_INTEGERS = st.integers(-(2**63), 2**63 - 1)
_COUNTS = st.integers(0, 2**64 - 1)
_OPTIONAL = st.none() | st.floats()
_EXEMPLARS = st.lists(
    st.builds(
        Exemplar,
        items.ATTRIBUTES,
        st.floats() | _INTEGERS,
        items.NANOSECONDS,
        st.none() | items.SPAN_IDS,
        st.none() | items.TRACE_IDS,
    ),
    max_size=2,
)
_NUMBERS = st.builds(
    NumberDataPoint,
    items.ATTRIBUTES | st.none(),
    items.NANOSECONDS,
    items.NANOSECONDS,
    st.floats() | _INTEGERS,
    _EXEMPLARS,
)
_BUCKETS = st.lists(_COUNTS, max_size=5) | st.lists(st.integers(0, 255), max_size=40).map(tuple)
_SUMS = _OPTIONAL | st.integers(-(2**53), 2**53)
_HISTOGRAMS = st.builds(
    HistogramDataPoint,
    items.ATTRIBUTES,
    items.NANOSECONDS,
    items.NANOSECONDS,
    _COUNTS,
    _SUMS,
    _BUCKETS,
    st.lists(st.floats() | st.integers(-5, 5), max_size=5) | st.just((0.0, 5.0)) | st.just((-0.0, 5)),
    _OPTIONAL,
    _OPTIONAL,
    _EXEMPLARS,
)
# The SDK's Buckets have no public name.
_SIDES = st.builds(
    lambda offset, counts: type("Buckets", (), {"offset": offset, "bucket_counts": counts})(),
    st.integers(-(2**31), 2**31 - 1),
    _BUCKETS,
)
_EXPONENTIALS = st.builds(
    ExponentialHistogramDataPoint,
    items.ATTRIBUTES,
    items.NANOSECONDS,
    items.NANOSECONDS,
    _COUNTS,
    _SUMS,
    st.integers(-10, 20),
    _COUNTS,
    _SIDES,
    _SIDES,
    st.integers(0, 2**32 - 1),
    _OPTIONAL,
    _OPTIONAL,
    _EXEMPLARS,
)
_TEMPORALITIES = st.sampled_from(AggregationTemporality)
_DATA = st.one_of(
    st.builds(Gauge, st.lists(_NUMBERS, max_size=3)),
    st.builds(Sum, st.lists(_NUMBERS, max_size=3), _TEMPORALITIES, st.booleans()),
    st.builds(Histogram, st.lists(_HISTOGRAMS, max_size=3), _TEMPORALITIES),
    st.builds(ExponentialHistogram, st.lists(_EXPONENTIALS, max_size=3), _TEMPORALITIES),
)
_METRICS = st.builds(
    Metric, st.text(max_size=9), st.none() | st.text(max_size=9), st.none() | st.text(max_size=3), _DATA
)


@st.composite
def _metrics_data(draw: st.DrawFn) -> MetricsData:
    """As the SDK collects them: each resource once, and each of its scopes once."""
    resources, scopes = draw(items.owners())
    named = [scope for scope in scopes[:2] if scope is not None]
    return MetricsData(
        [
            ResourceMetrics(
                resource,
                [ScopeMetrics(scope, draw(st.lists(_METRICS, max_size=3)), "") for scope in named],
                "",
            )
            for resource in resources[: draw(st.integers(0, 2))]
        ]
    )


def _without_empty(request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest:
    """Without scopes that have no metrics, and resources that then have none: ours does not send them."""
    for group in request.resource_metrics:
        for scope in [scope for scope in group.scope_metrics if not scope.metrics]:
            group.scope_metrics.remove(scope)
    for group in [group for group in request.resource_metrics if not group.scope_metrics]:
        request.resource_metrics.remove(group)
    return request


def _message(payload: bytes) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest.FromString(payload)


def _one(data: Any, name: str = "app.calls") -> MetricsData:
    scope = InstrumentationScope("hub")
    metrics = [Metric(name, None, None, data)]
    return MetricsData([ResourceMetrics(Resource({"service.name": "hub"}), [ScopeMetrics(scope, metrics, "")], "")])


@given(_metrics_data())
def test_metrics_say_what_the_stock_encoder_says(data: MetricsData) -> None:
    """Any gauges, sums and histograms of both kinds, with exemplars and of both temporalities, parse to its message."""
    encoded = encode_metrics(data)
    expected = stock(data)
    points = sum(
        len(metric.data.data_points)
        for group in data.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    )
    assert items.canonical(_message(encoded.payload)) == items.canonical(_without_empty(expected))
    assert (encoded.items, encoded.left_out) == (points, 0)


@pytest.mark.parametrize("temporality", [AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE])
@pytest.mark.parametrize("exponential", [False, True])
def test_metrics_of_a_meter(temporality: AggregationTemporality, exponential: bool) -> None:
    """What the SDK collects from every kind of instrument, exemplars of a sampled trace included, says the same."""
    histograms = {HistogramInstrument: ExponentialBucketHistogramAggregation()} if exponential else {}
    reader = InMemoryMetricReader(
        preferred_temporality={HistogramInstrument: temporality}, preferred_aggregation=histograms
    )
    meter = MeterProvider([reader], Resource({"service.name": "hub"}), shutdown_on_exit=False).get_meter("hub", "1.0")
    histogram, counter = (
        meter.create_histogram("app.duration", "s"),
        meter.create_counter("app.calls", "{call}", "calls"),
    )
    meter.create_observable_gauge("app.size", [lambda _: []])
    up_down = meter.create_up_down_counter("app.open")
    with TracerProvider(shutdown_on_exit=False).get_tracer("hub").start_as_current_span("request"):
        for number in range(300):
            histogram.record(number / 7 - 3, {"app.plugin": "a"})
            counter.add(number, {"app.plugin": "b", "fresh": True})
            up_down.add(-number)
    data = reader.get_metrics_data()
    assert data is not None
    encoded = encode_metrics(data)
    assert _message(encoded.payload) == stock(data)
    assert any(
        point.exemplars
        for metric in _message(encoded.payload).resource_metrics[0].scope_metrics[0].metrics
        for point in (*metric.histogram.data_points, *metric.exponential_histogram.data_points)
    )


def test_an_odd_data_point_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A point that nobody can write is left out, counted, and named by its metric; the metric's others are sent."""
    good, odd = NumberDataPoint({}, 1, 2, 3), NumberDataPoint({}, 1, -2, 3)
    before = losses.counts["data point of left out"]
    with caplog.at_level(logging.WARNING, "hubscope"):
        for _ in range(2):
            encoded = encode_metrics(_one(Gauge([odd, good]), "metric with an odd point"))
            assert _message(encoded.payload) == stock(_one(Gauge([good]), "metric with an odd point"))
            assert (encoded.items, encoded.left_out) == (1, 1)
    assert losses.counts["data point of left out"] == before + 2
    assert [record.getMessage().count("'metric with an odd point'") for record in caplog.records] == [1]
    assert encode_metrics(_one(Gauge([odd]))) == (b"", 0, 1)


def test_an_odd_exemplar_costs_only_itself() -> None:
    """A point whose exemplar cannot be written is sent without it, where the stock encoder loses the whole batch."""
    odd, good = Exemplar({}, 1.5, 2, 2**64, 2**128), Exemplar({}, 2.5, 2, 3, 4)
    encoded = encode_metrics(_one(Gauge([NumberDataPoint({}, 1, 2, 3, [odd, good])])))
    assert _message(encoded.payload) == stock(_one(Gauge([NumberDataPoint({}, 1, 2, 3, [good])])))


def test_bounds_that_change_are_written_anew() -> None:
    """Bounds in a list, which somebody may change, are what they are when they are written."""
    bounds = [1.0, 2.0]
    data = _one(Histogram([HistogramDataPoint({}, 1, 2, 3, 4, (1, 1, 1), bounds, 0, 5)], AggregationTemporality.DELTA))
    for changed in (1.0, 1.5):
        bounds[0] = changed
        assert _message(encode_metrics(data).payload) == stock(data)


def test_a_sum_beyond_64_bits_is_the_nearest_float() -> None:
    """A counter that outgrew 64 bits is sent as a float: the stock encoder refuses it, and the batch with it."""
    encoded = encode_metrics(_one(Sum([NumberDataPoint({}, 1, 2, 2**63)], AggregationTemporality.DELTA, True)))
    point = _message(encoded.payload).resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    assert (point.WhichOneof("value"), point.as_double) == ("as_double", 2.0**63)


def test_a_metric_of_another_class_goes_to_the_stock_encoder() -> None:
    """A subclass of a known kind goes to the stock encoder; a kind that it does not know either is left out."""

    class Special(Gauge):
        pass

    @dataclass(frozen=True)
    class Summary:
        data_points: tuple[Any, ...]

    encoded = encode_metrics(_one(Special([NumberDataPoint({"n": 1}, 1, 2, 3)])))
    assert _message(encoded.payload) == stock(_one(Gauge([NumberDataPoint({"n": 1}, 1, 2, 3)])))
    assert (encoded.items, encoded.left_out) == (1, 0)
    assert encode_metrics(_one(Summary((1, 2)), "summary")) == (b"", 0, 2)

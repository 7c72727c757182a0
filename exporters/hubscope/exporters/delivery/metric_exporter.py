"""Metrics by OTLP: `OTEL_METRICS_EXPORTER=hubscope`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from hubscope.exporters.delivery.courier import courier
from hubscope.exporters.delivery.settings import Destination
from hubscope.exporters.encoding.metrics import encode_metrics

_log = logging.getLogger("hubscope")

TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
AGGREGATION: Final = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
_KINDS: Final = (Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge)
# What is delta under each preference; everything else is cumulative (metrics exporter specification).
_DELTA: Final[dict[str, tuple[type, ...]]] = {
    "CUMULATIVE": (),
    "DELTA": (Counter, Histogram, ObservableCounter),
    "LOWMEMORY": (Counter, Histogram),
}
_HISTOGRAMS: Final[dict[str, type[Aggregation]]] = {
    "EXPLICIT_BUCKET_HISTOGRAM": ExplicitBucketHistogramAggregation,
    "BASE2_EXPONENTIAL_BUCKET_HISTOGRAM": ExponentialBucketHistogramAggregation,
}


class HubscopeMetricExporter(MetricExporter):
    """Sends to `destination`, or to where OTEL_EXPORTER_OTLP_* say. Never raises, and never waits long at the end."""

    def __init__(self, destination: Destination | None = None) -> None:
        super().__init__(temporality(os.environ), {Histogram: histograms(os.environ)})
        self.courier = courier("metrics", destination)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """SUCCESS when the destination has them for good."""
        encoded = encode_metrics(metrics_data)
        taken = self.courier.deliver(encoded.payload, encoded.items)
        return MetricExportResult.SUCCESS if taken else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Give up waiting; the SDK exports no more."""
        self.courier.close()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits in here."""
        return True


def temporality(environ: Mapping[str, str]) -> dict[type, AggregationTemporality]:
    """By kind of instrument, as the environment prefers."""
    delta = _DELTA[_chosen(TEMPORALITY, "CUMULATIVE", tuple(_DELTA), environ)]
    return {
        kind: AggregationTemporality.DELTA if kind in delta else AggregationTemporality.CUMULATIVE for kind in _KINDS
    }


def histograms(environ: Mapping[str, str]) -> Aggregation:
    """How histograms are aggregated, as the environment prefers."""
    return _HISTOGRAMS[_chosen(AGGREGATION, "EXPLICIT_BUCKET_HISTOGRAM", tuple(_HISTOGRAMS), environ)]()


def _chosen(name: str, default: str, known: tuple[str, ...], environ: Mapping[str, str]) -> str:
    said = (environ.get(name) or default).upper().strip()
    if said in known:
        return said
    expected = ", ".join(word.lower() for word in known)
    _log.warning("hubscope: %s: expected one of %s, got %r; using %s", name, expected, environ[name], default.lower())
    return default

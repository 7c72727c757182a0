"""What became of what was to be sent, as the metrics that OpenTelemetry names for it: read once a metric interval.

Off unless OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED says `true`, as the stock exporters' own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from hubscope import semconv as names

if TYPE_CHECKING:
    from hubscope.exporters.delivery.courier import Courier

ENABLED: Final = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
_METRICS: Final = {
    "traces": (names.METRIC_EXPORTED_SPANS, "span"),
    "metrics": (names.METRIC_EXPORTED_POINTS, "metric"),
    "logs": (names.METRIC_EXPORTED_LOGS, "log"),
}
_FAILED: Final = ("refused", "rejected", "dropped", "lost")


def observe(meter: Any, couriers: Callable[[], Iterable[Courier]]) -> bool:
    """Have the couriers' counts read with the other metrics; whether that was asked for."""
    if os.environ.get(ENABLED, "").strip().lower() != "true":
        return False
    for signal, (name, _) in _METRICS.items():
        metric = next(metric for metric in names.METRICS if metric.name == name)

        def read(_: Any, signal: str = signal) -> Iterator[Any]:
            return observations([courier for courier in couriers() if courier.signal == signal])

        meter.create_observable_counter(name, [read], metric.unit, metric.brief)
    return True


def observations(couriers: Iterable[Courier]) -> Iterator[Any]:
    """A point for what arrived, and one for each way in which something did not."""
    from opentelemetry.metrics import Observation

    for courier in couriers:
        destination, counts = courier.destination, courier.counts
        protocol = "grpc" if destination is not None and destination.protocol == "grpc" else "http"
        attributes = {names.OTEL_COMPONENT_TYPE: f"otlp_{protocol}_{_METRICS[courier.signal][1]}_exporter"}
        if destination is not None:
            attributes[names.SERVER_ADDRESS] = destination.server
        yield Observation(counts.accepted + counts.resent, attributes)
        for error in _FAILED:
            if number := getattr(counts, error):
                yield Observation(number, {**attributes, names.ERROR_TYPE: error})

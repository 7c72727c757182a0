"""One application whose spans and metrics go through both forms: the SDK's processors, and OTLP into a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.processors import rules, rules_file
from hubscope.processors.batch import Batch
from hubscope.processors.sdk import attach

SECOND = 10**9


@dataclass
class Call:
    """One span to make: times in seconds from the application's `origin_ns`."""

    name: str
    start_s: float
    duration_s: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    kind: SpanKind = SpanKind.INTERNAL
    failed: bool = False
    children: Sequence[Call] = ()


def plugin(duration_s: float, start_s: float = 1.0, id: str = "p1", tier: str = "standard", **used: Any) -> Call:
    """A plugin call; `used` are attributes under `hub.plugin.`."""
    attributes = {"hub.plugin.id": id, "hub.plugin.hook": "on_search", "hub.plugin.tier": tier}
    attributes |= {f"hub.plugin.{name}": value for name, value in used.items()}
    return Call(f"plugin {id} on_search", start_s, duration_s, attributes)


class Application:
    """Real SDK providers with the SDK form attached; keeps what it sent and what the SDK form made of it."""

    def __init__(
        self, the_rules: rules.Rules, *, service: str = "hub", version: str = "1", instance: str = "run-1"
    ) -> None:
        resource = Resource({"service.name": service, "service.version": version, "service.instance.id": instance})
        self.origin_ns = (time.time_ns() // (60 * SECOND)) * 60 * SECOND - 60 * SECOND
        self._sent, self._told, self._reader = (
            InMemorySpanExporter(),
            InMemoryLogRecordExporter(),
            InMemoryMetricReader(),
        )
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.meter_provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        self.logger_provider = LoggerProvider(resource, shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self._told))
        attach(self.tracer_provider, self.meter_provider, self.logger_provider, the_rules)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._sent))
        self._closed = False
        self.tracer = self.tracer_provider.get_tracer("test")
        self.meter = self.meter_provider.get_meter("test")

    def run(self, calls: Sequence[Call], parent: Context | None = None) -> list[ReadableSpan]:
        """Makes the spans, children ending before their parents; returns all that were sent so far."""
        for call in calls:
            span = self.tracer.start_span(
                call.name,
                parent if parent is not None else Context(),
                call.kind,
                dict(call.attributes),
                start_time=self.origin_ns + int(call.start_s * SECOND),
            )
            self.run(call.children, set_span_in_context(span, Context()))
            if call.failed:
                span.set_status(Status(StatusCode.ERROR))
            span.end(self.origin_ns + int((call.start_s + call.duration_s) * SECOND))
        return list(self._sent.get_finished_spans())

    def batch(self, spans: Sequence[ReadableSpan], segment: int = 1) -> Batch:
        """The same spans as the collector would decode them."""
        payload = encode_spans(spans).SerializeToString()
        tables = decode([Record(Signal.TRACES, payload, time.time_ns())]) if spans else {}
        return Batch(segment, time.time_ns(), tables)

    def metrics_batch(self, segment: int = 1) -> Batch:
        """What the application's own reader would send: cumulative points, as by default."""
        self.tracer_provider.force_flush()
        data = self._reader.get_metrics_data()
        assert data is not None
        for of_resource in data.resource_metrics:  # what the SDK form derived is not what arrives from outside
            object.__setattr__(
                of_resource, "scope_metrics", [s for s in of_resource.scope_metrics if s.scope.name == "test"]
            )
        return Batch(
            segment,
            time.time_ns(),
            decode([Record(Signal.METRICS, encode_metrics(data).SerializeToString(), time.time_ns())]),
        )

    def events(self) -> list[dict[str, Any]]:
        """Events of the SDK form, decoded as the collector would: rows of otel_logs."""
        found = self._told.get_finished_logs()
        if not found:
            return []
        payload = encode_logs(found).SerializeToString()
        rows: list[dict[str, Any]] = decode([Record(Signal.LOGS, payload, time.time_ns())])["otel_logs"].to_pylist()
        return rows

    def metric(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """(attributes, data point) of one metric of the SDK form, collected now."""
        self.tracer_provider.force_flush()
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            (dict(point.attributes or {}), point)
            for of_resource in data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def kpis(self) -> dict[str, tuple[float, str]]:
        """KPI -> (value, status), as the SDK form reports it now."""
        return {a["hub.kpi.name"]: (p.value, a["hub.kpi.status"]) for a, p in self.metric("hub.kpi.value")}

    def close(self) -> None:
        """Ends the providers' threads; a second time changes nothing."""
        if self._closed:
            return
        self._closed = True
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()
        self.logger_provider.shutdown()


@pytest.fixture
def the_rules() -> rules.Rules:
    return rules_file.load("")


@pytest.fixture
def application(the_rules: rules.Rules) -> Iterator[Callable[..., Application]]:
    """`application(**resource)`: a new one; closed at the end."""
    made: list[Application] = []

    def make(**resource: str) -> Application:
        made.append(Application(the_rules, **resource))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def call() -> type[Call]:
    return Call


@pytest.fixture
def plugin_call() -> Callable[..., Call]:
    return plugin


@pytest.fixture
def derived_kpis() -> Callable[[Batch], dict[str, tuple[float, str]]]:
    """KPI -> (value, status) of a processed batch."""

    def of(batch: Batch) -> dict[str, tuple[float, str]]:
        found: dict[str, tuple[float, str]] = {}
        for table in [batch.derived["otel_metrics_gauge"]] if "otel_metrics_gauge" in batch.derived else []:
            for row in table.to_pylist():
                attributes = dict(row["Attributes"])
                if row["MetricName"] == "hub.kpi.value":
                    found[attributes["hub.kpi.name"]] = (row["Value"], attributes["hub.kpi.status"])
        return found

    return of


@pytest.fixture
def derived_events() -> Callable[[Batch, str], list[dict[str, Any]]]:
    """Derived rows of otel_logs with that event name."""

    def of(batch: Batch, name: str) -> list[dict[str, Any]]:
        table = batch.derived.get("otel_logs")
        return [] if table is None else [row for row in table.to_pylist() if row["EventName"] == name]

    return of

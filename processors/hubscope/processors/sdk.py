"""The processors for an application that sends straight to somebody else's backend: the same rules, the same windows,
the same violations as in the collector, derived in the application and emitted through the OpenTelemetry API.

    attach(tracer_provider, meter_provider, logger_provider, rules_file.load())

Do not attach them in an application that sends to `hubscope collect`: both would derive, and everything counts twice.
KPIs that are fed by metrics need a MeterProvider of the SDK; what arrives there is read every 10 s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk import metrics as sdk_metrics
from opentelemetry.sdk.metrics import export as metric_export
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, format_span_id, format_trace_id, set_span_in_context

from hubscope import semconv
from hubscope.processors.feeding import CUMULATIVE, DELTA, Point, Series, Stream, feed_point, feed_span, streams_of
from hubscope.processors.limits import USED, Flood, Plugin, Uses, Violation, limits
from hubscope.processors.overhead import Added, Overhead, is_entry, is_operation
from hubscope.processors.rules import RESOURCES, Rules
from hubscope.processors.selection import as_number, as_text, matcher
from hubscope.processors.telling import alert_attributes, alert_sentence, kpi_attributes
from hubscope.processors.windows import KpiValue, Raised, Subject, Windows

SCOPE: Final = "hubscope.processors"
READ_INTERVAL_MS: Final = 10_000  # the plan looks at its plugins that often (4.1)
_MAX_SHAPES: Final = 10_000  # (name, kind, root) of spans whose streams are remembered


def attach(
    tracer_provider: TracerProvider, meter_provider: MeterProvider, logger_provider: LoggerProvider, rules: Rules
) -> None:
    """Derives KPIs and quota violations from every span that ends and every metric, from now on.

    Emits `hub.kpi.value`, `hub.plugin.overhead` and `hub.quota.violations` through `meter_provider`, and the events
    `hub.quota.violation` and `hub.alert` through `logger_provider`.
    """
    processor = RulesSpanProcessor(meter_provider, logger_provider, rules)
    if isinstance(meter_provider, sdk_metrics.MeterProvider):
        reader = metric_export.PeriodicExportingMetricReader(_Feeder(processor), READ_INTERVAL_MS)
        meter_provider.add_metric_reader(reader)
        processor.reader = reader
    tracer_provider.add_span_processor(processor)


class RulesSpanProcessor(SpanProcessor):
    """Judges each span as it ends. Never raises into the application: the SDK would let it through."""

    def __init__(self, meter_provider: MeterProvider, logger_provider: LoggerProvider, rules: Rules) -> None:
        self.reader: metric_export.MetricReader | None = None
        self._lock = threading.Lock()  # around everything up to the instruments
        self._windows, self._series = Windows(rules, max_windows=1_000), Series()
        self._overhead, self._uses, self._flood = Overhead(), Uses(), Flood()
        self._limits = limits(rules)
        streams = streams_of(rules)
        self._spans = tuple(s for s in streams if s.feed.span)
        self.metrics: dict[str, tuple[Stream, ...]] = {}
        for stream in streams:
            if stream.feed.metric:
                self.metrics[stream.feed.metric] = (*self.metrics.get(stream.feed.metric, ()), stream)
        self._last_resource: tuple[Resource | None, tuple[Subject, str]] = (None, (Subject("", ""), ""))
        self._shapes: dict[tuple[str, str, bool], tuple[Stream, ...]] = {}
        self._values: dict[tuple[Subject, str], tuple[int, KpiValue]] = {}  # with the time it was last fed
        meter = meter_provider.get_meter(SCOPE, schema_url=semconv.SCHEMA_URL)
        self._logger = logger_provider.get_logger(SCOPE, schema_url=semconv.SCHEMA_URL)
        self._violations = meter.create_counter(semconv.METRIC_QUOTA_VIOLATIONS, "{violation}", "Quota violations.")
        self._added = meter.create_histogram(
            semconv.METRIC_PLUGIN_OVERHEAD, "s", "Time that plugins added to one task, request or root operation."
        )
        meter.create_observable_gauge(semconv.METRIC_KPI, [self._observe], "1", "A derived KPI, in the KPI's own unit.")

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is known of a span before it ends."""

    def on_end(self, span: ReadableSpan) -> None:
        try:
            self._judge(span)
        except Exception:  # a span that cannot be judged must not break the application
            import logging

            logging.getLogger(__name__).warning("span %r was not judged", span.name, exc_info=True)

    def _judge(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is None or span.start_time is None or span.end_time is None:
            return
        attributes = span.attributes or {}
        subject, instance = self._whose(span.resource)
        kind, parent = span.kind.name.capitalize(), format_span_id(span.parent.span_id) if span.parent else ""
        plugin_id = as_text(attributes.get(semconv.HUB_PLUGIN_ID))
        trace_id = format_trace_id(context.trace_id)
        told: list[Violation] = []
        added: list[Added] = []
        with self._lock:
            feed_span(
                self._windows,
                self._shape(span.name, kind, not parent),
                subject,
                instance,
                name=span.name,
                kind=kind,
                parent_span_id=parent,
                status=span.status.status_code.name.capitalize(),
                attributes=attributes,
                start_ns=span.start_time,
                end_ns=span.end_time,
            )
            if plugin_id:
                self._overhead.call(trace_id, instance, plugin_id, span.start_time, span.end_time)
                plugin = Plugin.of(
                    plugin_id,
                    as_text(attributes.get(semconv.HUB_PLUGIN_TIER)),
                    as_text(attributes.get(semconv.HUB_PLUGIN_PERMISSIONS)),
                )
                span_id = format_span_id(context.span_id)
                told = list(self._violated(span, plugin, subject.service, instance, trace_id, span_id))
            task, entry = as_text(attributes.get(semconv.HUB_TASK_NAME)), is_entry(kind, parent)
            if (task or entry) and self._overhead.has(trace_id, instance):
                added = self._overhead.operation(trace_id, instance, span.start_time, span.end_time, is_last=entry)
                if not is_operation(span.name, kind, parent, task):
                    added = []
                for plugin_of, seconds in added:
                    self._feed_overhead(subject, instance, plugin_of, seconds, span.end_time)
            loud = [
                violation
                for violation in told
                if self._flood.lets_through(
                    (subject.service, instance, violation.plugin.id, violation.quota.resource), violation.time_ns
                )
            ]
        for plugin_of, seconds in added:
            self._added.record(seconds, {semconv.HUB_PLUGIN_ID: plugin_of} if plugin_of else {})
        for violation in told:
            self._violations.add(1, violation.count_attributes())
        for violation in loud:
            self._logger.emit(
                timestamp=violation.time_ns,
                observed_timestamp=time.time_ns(),
                context=set_span_in_context(NonRecordingSpan(context), Context()),
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=violation.sentence(),
                attributes=violation.attributes(),
                event_name=semconv.EVENT_QUOTA_VIOLATION,
            )

    def _whose(self, resource: Resource) -> tuple[Subject, str]:
        """Read once a resource: a provider gives all its spans the same one."""
        last, whose = self._last_resource
        if last is not resource:
            whose = _subject_and_instance(resource.attributes)
            self._last_resource = (resource, whose)
        return whose

    def _shape(self, name: str, kind: str, is_root: bool) -> tuple[Stream, ...]:
        """The streams that may mean a span of that name and kind; their attributes are looked at each time."""
        key = (name, kind, is_root)
        found = self._shapes.get(key)
        if found is None:
            found = tuple(
                s
                for s in self._spans
                if matcher(s.feed.span)(name)
                and (not s.feed.kind or kind in s.feed.kind)
                and (is_root or not s.feed.root)
            )
            if len(self._shapes) < _MAX_SHAPES:
                self._shapes[key] = found
        return found

    def _violated(
        self, span: ReadableSpan, plugin: Plugin, service: str, instance: str, trace_id: str, span_id: str
    ) -> Iterator[Violation]:
        attributes, start_ns, end_ns = span.attributes or {}, span.start_time or 0, span.end_time or 0
        quotas = self._limits(plugin)
        for resource in RESOURCES:
            quota = quotas.get(resource)
            if quota is None:
                continue
            used = as_number(attributes.get(USED[resource])) if USED[resource] else (end_ns - start_ns) / 1e9
            if used != used:  # NaN: nobody measured it
                continue
            observed: float | None = used if used > quota.limit else None
            if quota.window_s:
                observed = self._uses.add((service, instance, plugin.id, resource), quota, start_ns, end_ns, used)
            if observed is not None:
                hook = as_text(attributes.get(semconv.HUB_PLUGIN_HOOK))
                yield Violation(plugin, hook, quota, observed, end_ns, trace_id, span_id)

    def _feed_overhead(self, subject: Subject, instance: str, plugin: str, seconds: float, time_ns: int) -> None:
        point = Point(
            subject=subject,
            instance=instance,
            metric=semconv.METRIC_PLUGIN_OVERHEAD,
            attributes={semconv.HUB_PLUGIN_ID: plugin} if plugin else {},
            time_ns=time_ns,
            value=seconds,
        )
        feed_point(self._windows, self._series, self.metrics.get(point.metric, ()), point)

    def feed(self, points: Iterable[Point]) -> None:
        """Metric points that the application recorded."""
        with self._lock:
            for point in points:
                feed_point(self._windows, self._series, self.metrics.get(point.metric, ()), point)

    def _observe(self, options: CallbackOptions) -> Iterator[Observation]:
        """The KPI values of every window that still holds something; alerts are told on the way."""
        raised: list[Raised] = []
        now_ns = time.time_ns()
        with self._lock:
            for found in self._windows.drain():
                if isinstance(found, KpiValue):
                    self._values[found.subject, found.kpi.name] = (now_ns, found)
                else:
                    raised.append(found)
            self._values = {
                key: (fed_ns, value)
                for key, (fed_ns, value) in self._values.items()
                if now_ns - fed_ns <= value.kpi.window_s * 1e9
            }
            values = [value for _, value in self._values.values()]
        for alert in raised:
            self._logger.emit(
                timestamp=alert.time_ns,
                observed_timestamp=now_ns,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=alert_sentence(alert),
                attributes=alert_attributes(alert),
                event_name=semconv.EVENT_ALERT,
            )
        for value in values:
            yield Observation(value.value, kpi_attributes(value))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.reader is None or self.reader.force_flush(timeout_millis)

    def shutdown(self) -> None:
        if self.reader is not None:
            self.reader.shutdown()


class _Feeder(metric_export.MetricExporter):
    """Hands what the application's instruments recorded to the processor, instead of sending it."""

    def __init__(self, processor: RulesSpanProcessor) -> None:
        super().__init__(
            preferred_temporality={
                sdk_metrics.Counter: metric_export.AggregationTemporality.DELTA,
                sdk_metrics.ObservableCounter: metric_export.AggregationTemporality.DELTA,
                sdk_metrics.Histogram: metric_export.AggregationTemporality.DELTA,
            }
        )
        self._processor = processor

    def export(
        self, metrics_data: metric_export.MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> metric_export.MetricExportResult:
        self._processor.feed(sorted(self._points(metrics_data), key=lambda point: point.time_ns))
        return metric_export.MetricExportResult.SUCCESS

    def _points(self, metrics_data: metric_export.MetricsData) -> Iterator[Point]:
        for of_resource in metrics_data.resource_metrics:
            subject, instance = _subject_and_instance(of_resource.resource.attributes)
            for of_scope in of_resource.scope_metrics:
                if of_scope.scope.name == SCOPE:  # our own; the overhead was fed when it was recorded
                    continue
                for metric in of_scope.metrics:
                    if metric.name in self._processor.metrics:
                        for data_point in metric.data.data_points:
                            yield _point(subject, instance, metric, data_point)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Holds nothing."""


def _subject_and_instance(resource: Mapping[str, Any]) -> tuple[Subject, str]:
    service, version, instance = (
        as_text(resource.get(name))
        for name in (semconv.SERVICE_NAME, semconv.SERVICE_VERSION, semconv.SERVICE_INSTANCE_ID)
    )
    return Subject(service, version), instance


def _point(
    subject: Subject, instance: str, metric: metric_export.Metric, data_point: metric_export.DataPointT
) -> Point:
    data = metric.data
    common: dict[str, Any] = {
        "subject": subject,
        "instance": instance,
        "metric": metric.name,
        "attributes": dict(data_point.attributes or {}),
        "time_ns": data_point.time_unix_nano,
        "start_ns": data_point.start_time_unix_nano or 0,
    }
    if not isinstance(data, metric_export.Gauge):
        delta = data.aggregation_temporality is metric_export.AggregationTemporality.DELTA
        common["temporality"] = DELTA if delta else CUMULATIVE
    if isinstance(data_point, metric_export.NumberDataPoint):
        monotonic = isinstance(data, metric_export.Sum) and data.is_monotonic
        return Point(**common, value=float(data_point.value), monotonic=monotonic)
    distribution: dict[str, Any] = {
        "histogram": True,
        "count": float(data_point.count),
        "total": float(data_point.sum),
        "low": data_point.min,
        "high": data_point.max,
    }
    if isinstance(data_point, metric_export.HistogramDataPoint):
        counts, offset = data_point.bucket_counts, 0
        distribution["bounds"] = tuple(data_point.explicit_bounds)
    else:
        counts, offset = data_point.positive.bucket_counts, data_point.positive.offset
        distribution |= {"zero": float(data_point.zero_count), "scale": data_point.scale}
    buckets = {offset + n: float(count) for n, count in enumerate(counts) if count}
    return Point(**common, **distribution, buckets=buckets)

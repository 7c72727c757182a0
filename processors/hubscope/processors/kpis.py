"""KPIs and alerts of a batch: spans are grouped by Arrow, their groups added to the sliding windows, and every window
that got something gives one `hub.kpi.value` point; an alert is one `hub.alert` event a crossing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, LOGS, SUM
from hubscope.processors import rows
from hubscope.processors.batch import Batch
from hubscope.processors.columns import SpanColumns
from hubscope.processors.feeding import Point, Series, Stream, feed_point, streams_of
from hubscope.processors.rules import Rules
from hubscope.processors.sketch import BUCKETS_PER_DOUBLING
from hubscope.processors.telling import alert_attributes, alert_sentence, kpi_attributes
from hubscope.processors.upstream import Upstream
from hubscope.processors.windows import KpiValue, Raised, Subject, Windows, slot_ns

# A sender whose clock is further ahead than this would push its window past everybody's; its samples are left out.
MAX_AHEAD_NS: Final = 600 * 10**9

_HISTOGRAMS: Final = (HISTOGRAM, EXPONENTIAL_HISTOGRAM)


class Kpis:
    """The KPI processor. Its memory, windows and series, is bounded: windows.MAX_WINDOWS and feeding.MAX_SERIES."""

    name = "kpis"

    def __init__(self, rules: Rules, upstream: Upstream | None = None) -> None:
        self.upstream = upstream if upstream is not None else Upstream()
        self.windows = Windows(rules)
        self.series = Series()
        self.ahead = 0  # samples left out because their clock is ahead
        streams = streams_of(rules)
        self._spans = tuple(s for s in streams if s.feed.span)
        self._metrics: dict[str, tuple[Stream, ...]] = {}
        for stream in streams:
            if stream.feed.metric:
                self._metrics[stream.feed.metric] = (*self._metrics.get(stream.feed.metric, ()), stream)

    def __call__(self, batch: Batch) -> Batch:
        newest_ns = batch.received_unix_nano + MAX_AHEAD_NS
        spans = SpanColumns.of(batch)
        if spans is not None:
            in_time = pc.less_equal(spans.end_ns, newest_ns)
            self.ahead += spans.spans.num_rows - (pc.sum(in_time).as_py() or 0)
            for stream in self._spans:
                self._feed_spans(spans, in_time, stream)
        for point in self._points(batch):
            if point.time_ns > newest_ns:
                self.ahead += 1
            else:
                feed_point(self.windows, self.series, self._left(point), point)
        return self._derive(batch)

    def _feed_spans(self, spans: SpanColumns, in_time: pa.Array, stream: Stream) -> None:
        kpi, feed = stream.kpi, stream.feed
        mask = pc.and_(spans.means(feed), in_time)
        if not pc.any(mask).as_py():
            return
        whose, subjects = spans.subjects
        if self.upstream:
            until = [self.upstream.until(semconv.METRIC_KPI, *subject, kpi.name) for subject in subjects]
            if any(until):
                mask = pc.and_(mask, pc.greater(spans.end_ns, pa.array(np.array(until)[whose])))
        growth, distinct = kpi.aggregate == "growth_per_h", kpi.aggregate == "distinct"
        if distinct:
            values = spans.attribute(feed.value)
            mask = pc.and_(mask, pc.not_equal(values, ""))
        else:
            values = spans.duration_s if feed.value == "duration" else spans.number(feed.value)
            if kpi.aggregate != "ratio":  # below 0 is a clock that went back, not a fast operation
                mask = pc.and_(mask, pc.fill_null(pc.greater_equal(values, 0.0), False))
        if not pc.any(mask).as_py():
            return
        if kpi.aggregate == "apdex":
            values = _apdex_scores(values, pc.equal(spans.text("StatusCode"), "Error"), kpi.apdex_threshold_s)
        columns = {"subject": pa.array(whose), "time": spans.end_ns, "value": values}
        if growth:
            columns["stream"] = spans.instance
        samples = pa.table(columns).filter(mask)
        samples = samples.append_column("slot", pc.divide(samples["time"], slot_ns(kpi)))
        if distinct or growth:
            self._feed_each(samples, subjects, stream, distinct=distinct)
        else:
            self._feed_groups(samples, subjects, stream)

    def _feed_each(self, samples: pa.Table, subjects: list[tuple[str, str]], stream: Stream, *, distinct: bool) -> None:
        """Different texts, or the latest value of each process and slot: few after grouping, so added one by one."""
        if distinct:
            keys, wanted = ["subject", "slot", "value"], [("time", "max")]
        else:
            keys, wanted = ["subject", "slot", "stream"], [("time", "max"), ("value", "last")]
            samples = samples.sort_by("time")
        groups = samples.group_by(keys, use_threads=False).aggregate(wanted)
        for row in groups.sort_by("time_max").to_pylist():
            subject = Subject(*subjects[row["subject"]])
            sketch = self.windows.sketch(subject, stream.kpi, row.get("stream", stream.name), row["time_max"])
            if sketch is None:
                continue
            if distinct:
                sketch.add_texts([row["value"]])
            else:
                sketch.add(row["value_last"], 1.0, row["time_max"])

    def _feed_groups(self, samples: pa.Table, subjects: list[tuple[str, str]], stream: Stream) -> None:
        # Without threads: their order would decide the last digits of a sum, and a replay must give the same row.
        ratio = stream.kpi.aggregate == "ratio"
        buckets = {} if ratio else _buckets(samples)
        wanted = [("time", "count"), ("time", "max")]
        if not ratio:
            wanted += [("value", "sum"), ("value", "min"), ("value", "max"), ("value", "last")]
            if stream.kpi.aggregate == "last":
                samples = samples.sort_by("time")
        groups = samples.group_by(["subject", "slot"], use_threads=False).aggregate(wanted)
        for row in groups.sort_by("time_max").to_pylist():
            subject = Subject(*subjects[row["subject"]])
            sketch = self.windows.sketch(subject, stream.kpi, stream.name, row["time_max"])
            if sketch is None:
                continue
            if ratio:
                sketch.count += row["time_count"]
                continue
            found = buckets[(row["subject"], row["slot"])]
            counted = {bucket: n for bucket, n in found.items() if bucket is not None}
            low, high = row["value_min"], row["value_max"]
            sketch.add_grouped(counted, found.get(None, 0.0), row["time_count"], row["value_sum"], low, high)
            if row["time_max"] >= sketch.last_ns:
                sketch.last_ns, sketch.last = row["time_max"], row["value_last"]

    def _left(self, point: Point) -> tuple[Stream, ...]:
        """The streams that the point feeds, without those of KPIs that came derived of it."""
        streams = self._metrics[point.metric]
        if not self.upstream:
            return streams
        until = self.upstream.until
        return tuple(s for s in streams if point.time_ns > until(semconv.METRIC_KPI, *point.subject, s.kpi.name))

    def _points(self, batch: Batch) -> Iterator[Point]:
        """The points of metrics that a KPI is fed by, in the order of their time."""
        wanted = pa.array(list(self._metrics), pa.string())
        found: list[Point] = []
        for name in (GAUGE, SUM, *_HISTOGRAMS):
            for table in batch.rows(name):
                meant = table.filter(pc.is_in(table["MetricName"], value_set=wanted))
                keep = [c for c in meant.column_names if c in _POINT_COLUMNS]
                found += [_point(row, name) for row in meant.select(keep).to_pylist()]
        yield from sorted(found, key=lambda point: point.time_ns)

    def _derive(self, batch: Batch) -> Batch:
        values: list[rows.Row] = []
        alerts: list[rows.Row] = []
        for found in self.windows.drain():
            if isinstance(found, KpiValue):
                values.append(_kpi_row(found))
            else:
                alerts.append(_alert_row(found, batch.received_unix_nano))
        batch = batch.with_derived(GAUGE, rows.table(GAUGE, values)) if values else batch
        return batch.with_derived(LOGS, rows.table(LOGS, alerts)) if alerts else batch

    def snapshot(self) -> dict[str, Any]:
        return {"windows": self.windows.snapshot(), "series": self.series.snapshot(), "ahead": self.ahead}

    def restore(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.windows.restore(state.get("windows"))
        self.series.restore(state.get("series"))
        self.ahead = state.get("ahead", 0)


def _kpi_row(value: KpiValue) -> rows.Row:
    return rows.gauge(
        semconv.METRIC_KPI,
        value.kpi.unit,
        value.subject.service,
        rows.resource_of(value.subject),
        kpi_attributes(value),
        value.start_ns,
        value.time_ns,
        value.value,
    )


def _alert_row(raised: Raised, observed_ns: int) -> rows.Row:
    return rows.event(
        semconv.EVENT_ALERT,
        alert_sentence(raised),
        raised.subject.service,
        rows.resource_of(raised.subject),
        alert_attributes(raised),
        raised.time_ns,
        observed_ns,
    )


def _buckets(samples: pa.Table) -> dict[tuple[int, int], dict[int | None, float]]:
    """`sketch.bucket_of`, vectorised: the counts of each group's buckets; bucket None holds the values <= 0."""
    positive = pc.greater(samples["value"], 0.0)
    logarithm = pc.log2(pc.if_else(positive, samples["value"], 1.0))
    bucket = pc.cast(pc.subtract(pc.ceil(pc.multiply(logarithm, float(BUCKETS_PER_DOUBLING))), 1.0), pa.int64())
    samples = samples.append_column("bucket", pc.if_else(positive, bucket, pa.scalar(None, pa.int64())))
    found: dict[tuple[int, int], dict[int | None, float]] = {}
    groups = samples.group_by(["subject", "slot", "bucket"], use_threads=False).aggregate([("time", "count")])
    for row in groups.to_pylist():
        found.setdefault((row["subject"], row["slot"]), {})[row["bucket"]] = float(row["time_count"])
    return found


def _apdex_scores(duration_s: pa.Array, failed: pa.Array, threshold_s: float) -> pa.Array:
    """`windows.apdex_score`, vectorised."""
    frustrated = pc.or_(failed, pc.greater(duration_s, 4 * threshold_s))
    satisfied = pc.less_equal(duration_s, threshold_s)
    return pc.if_else(frustrated, 0.0, pc.if_else(satisfied, 1.0, 0.5))


_POINT_COLUMNS: Final = frozenset(
    {"ServiceName", "ServiceVersion", "ServiceInstanceId", "MetricName", "Attributes", "TimeUnixNano"}
    | {"StartTimeUnixNano", "Value", "ValueInt", "AggregationTemporality", "IsMonotonic", "Count", "Sum", "Min", "Max"}
    | {"Scale", "ZeroCount", "PositiveOffset", "PositiveBucketCounts", "BucketCounts", "ExplicitBounds"}
)


def _point(row: dict[str, Any], table_name: str) -> Point:
    common = {
        "subject": Subject(row["ServiceName"] or "", row["ServiceVersion"] or ""),
        "instance": row["ServiceInstanceId"] or "",
        "metric": row["MetricName"],
        "attributes": dict(row["Attributes"] or []),
        "time_ns": row["TimeUnixNano"] or 0,
        "start_ns": row["StartTimeUnixNano"] or 0,
        "temporality": row.get("AggregationTemporality") or 0,
    }
    if table_name not in _HISTOGRAMS:
        value = row["Value"] if row["Value"] is not None else row["ValueInt"]
        return Point(
            **common, value=float("nan") if value is None else float(value), monotonic=bool(row.get("IsMonotonic"))
        )
    exponential = table_name == EXPONENTIAL_HISTOGRAM
    counts = (row["PositiveBucketCounts"] if exponential else row["BucketCounts"]) or []
    offset = (row["PositiveOffset"] or 0) if exponential else 0
    return Point(
        **common,
        histogram=True,
        count=float(row["Count"] or 0),
        total=float(row["Sum"] or 0.0),
        low=row["Min"],
        high=row["Max"],
        zero=float(row.get("ZeroCount") or 0),
        buckets={offset + n: float(count) for n, count in enumerate(counts) if count},
        scale=row["Scale"] if exponential else None,
        bounds=tuple(row.get("ExplicitBounds") or ()),
    )

"""From one span or one metric point to the windows of the KPIs that mean it: the scalar half, shared by both forms.

The batch form brings spans in grouped by Arrow instead (kpis.py) and uses this for metric points, of which there are
thousands of times fewer; the SDK form uses it for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from hubscope import semconv
from hubscope.processors.rules import Feed, Kpi, Rules
from hubscope.processors.selection import as_number, as_text, attributes_match, span_matches
from hubscope.processors.sketch import SCALE, Sketch, bucket_of, middle_of
from hubscope.processors.windows import OWN_SET_UP, RATINGS, Subject, Windows, apdex_score

DELTA: Final = 1
CUMULATIVE: Final = 2
# Series whose previous cumulative point is remembered: 1,000 plugins with 4 series each, of 10 processes.
MAX_SERIES: Final = 40_000
# A cumulative series seen for the first time counts from its start if that is recent (two export intervals of the
# SDK's 60 s); else only from its next point on, because nobody knows when the sum grew.
MAX_FIRST_SPAN_S: Final = 120.0


_OWN_PHASE: Final = Feed(span=(semconv.SPAN_PHASE.format(name=semconv.OWN_PHASE),))


class Stream(NamedTuple):
    """One feed of a KPI, and the name its sketches have in the KPI's window."""

    kpi: Kpi
    name: str
    feed: Feed


def streams_of(rules: Rules) -> tuple[Stream, ...]:
    """Every feed of every KPI."""
    found: list[Stream] = []
    for kpi in rules.kpis:
        feeds = [kpi.numerator, kpi.denominator] if kpi.aggregate == "ratio" else list(kpi.feeds)
        found += [Stream(kpi, str(n), feed) for n, feed in enumerate(feeds) if feed is not None]
        if kpi.ratings is not None:
            found.append(Stream(kpi, RATINGS, kpi.ratings))
        if kpi.has_own_set_up:
            found.append(Stream(kpi, OWN_SET_UP, _OWN_PHASE))
    return tuple(found)


@dataclass(frozen=True)
class Point:
    """A metric point. `buckets` are those of a histogram: index -> count, at `scale`, or under `bounds` where None."""

    subject: Subject
    instance: str
    metric: str
    attributes: Mapping[str, Any]
    time_ns: int
    start_ns: int = 0
    temporality: int = 0  # 0 gauge, DELTA, CUMULATIVE
    monotonic: bool = False
    value: float = math.nan  # gauges and sums
    count: float = 0.0  # histograms
    total: float = 0.0
    low: float | None = None  # of delta points, where the sender gave it
    high: float | None = None
    zero: float = 0.0
    buckets: Mapping[int, float] = field(default_factory=dict)
    scale: int | None = None
    bounds: tuple[float, ...] = ()
    histogram: bool = False


@dataclass(frozen=True)
class _Increment:
    count: float
    total: float
    zero: float
    buckets: Mapping[int, float]
    scale: int | None


class Series:
    """The last point of each cumulative series, so that the next one can be read as an increment. Bounded."""

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self.max_series = max_series
        self.evicted = 0
        self._last: dict[str, tuple[int, int, _Increment]] = {}  # key -> start, time, cumulative values

    def increment(self, point: Point) -> _Increment | None:
        """What was added since the series' previous point; None where nobody can know, or nothing was."""
        now = _Increment(
            point.count if point.histogram else 1.0,
            point.total if point.histogram else point.value,
            point.zero,
            point.buckets,
            point.scale,
        )
        if point.temporality != CUMULATIVE:
            return now
        key = "\x1f".join(
            (
                *point.subject,
                point.instance,
                point.metric,
                *(f"{k}={as_text(v)}" for k, v in sorted(point.attributes.items())),
            )
        )
        before = self._last.pop(key, None)
        if before is not None and before[1] >= point.time_ns:  # out of order, or the same point again
            self._last[key] = before
            return None
        self._last[key] = (point.start_ns, point.time_ns, now)
        if len(self._last) > self.max_series:
            del self._last[next(iter(self._last))]
            self.evicted += 1
        if before is None:
            recent = point.start_ns > 0 and point.time_ns - point.start_ns <= MAX_FIRST_SPAN_S * 1e9
            return now if recent else None
        started, _, old = before
        restarted = started != point.start_ns or (now.count < old.count if point.histogram else now.total < old.total)
        return now if restarted else _difference(now, old)

    def snapshot(self) -> dict[str, Any]:
        return {
            "evicted": self.evicted,
            "last": [
                [k, s, t, i.count, i.total, i.zero, sorted(i.buckets.items()), i.scale]
                for k, (s, t, i) in self._last.items()
            ],
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        state = state or {}
        self.evicted = state.get("evicted", 0)
        self._last = {
            key: (start, time, _Increment(count, total, zero, {int(b): n for b, n in buckets}, scale))
            for key, start, time, count, total, zero, buckets, scale in state.get("last", [])
        }


def _difference(now: _Increment, old: _Increment) -> _Increment:
    new_buckets, old_buckets, scale = now.buckets, old.buckets, now.scale
    if now.scale is not None and old.scale is not None:
        # An exponential histogram lowers its scale as its range grows; two points are compared at the lower one.
        scale = min(now.scale, old.scale)
        new_buckets, old_buckets = (
            _downscale(new_buckets, now.scale - scale),
            _downscale(old_buckets, old.scale - scale),
        )
    left = {b: n - old_buckets.get(b, 0.0) for b, n in new_buckets.items() if n > old_buckets.get(b, 0.0)}
    return _Increment(now.count - old.count, now.total - old.total, max(0.0, now.zero - old.zero), left, scale)


def _downscale(buckets: Mapping[int, float], by: int) -> Mapping[int, float]:
    if by <= 0:
        return buckets
    merged: dict[int, float] = {}
    for bucket, count in buckets.items():
        merged[bucket >> by] = merged.get(bucket >> by, 0.0) + count
    return merged


def _value_of_bucket(bucket: int, bounds: tuple[float, ...]) -> float:
    """A value inside an explicit bucket: its middle; the open ends stand at half the first and at the last bound."""
    if not bounds:
        return 0.0
    if bucket == 0:
        return bounds[0] / 2 if bounds[0] > 0 else bounds[0]
    if bucket >= len(bounds):
        return bounds[-1]
    return (bounds[bucket - 1] + bounds[bucket]) / 2


def feed_point(windows: Windows, series: Series, streams: tuple[Stream, ...], point: Point) -> None:
    """Adds the point to the window of each KPI that means it. `streams` are those of the point's metric."""
    meant = [stream for stream in streams if attributes_match(stream.feed.where, point.attributes)]
    if not meant:
        return
    sampled = not point.histogram and not (point.monotonic and point.temporality)  # a level, not an amount
    increment = None if sampled else series.increment(point)
    if not sampled and (increment is None or (increment.count <= 0 and point.histogram)):
        return
    for kpi, name, feed in meant:
        growth = kpi.aggregate == "growth_per_h"
        sketch = windows.sketch(point.subject, kpi, point.instance if growth else name, point.time_ns)
        if sketch is None:
            continue
        if kpi.aggregate == "distinct":
            sketch.add_texts(filter(None, [as_text(point.attributes.get(feed.value))]))
        elif increment is None:
            value = point.value if feed.value == "value" else as_number(point.attributes.get(feed.value))
            sketch.add(value, 1.0, point.time_ns)
        elif kpi.aggregate == "ratio":
            sketch.count += increment.count if point.histogram else increment.total
        elif not point.histogram:
            sketch.add(increment.total, 1.0, point.time_ns)
        else:
            _add_histogram(sketch_buckets(increment, point), sketch, increment, point)


def sketch_buckets(increment: _Increment, point: Point) -> dict[int, float]:
    """The increment's buckets as those of a sketch (exactly, where the scale is at least the sketch's)."""
    found: dict[int, float] = {}
    for bucket, count in increment.buckets.items():
        if increment.scale is not None and increment.scale >= SCALE:
            target = bucket >> (increment.scale - SCALE)
        else:
            middle = (
                _value_of_bucket(bucket, point.bounds)
                if increment.scale is None
                else middle_of(bucket, increment.scale)
            )
            if not 0 < middle < math.inf:
                continue
            target = bucket_of(middle)
        found[target] = found.get(target, 0.0) + count
    return found


def _add_histogram(buckets: dict[int, float], sketch: Sketch, increment: _Increment, point: Point) -> None:
    exact = point.temporality != CUMULATIVE
    zero = max(0.0, increment.count - sum(buckets.values()))
    low = point.low if exact and point.low is not None else (0.0 if zero else middle_of(min(buckets, default=0)))
    high = point.high if exact and point.high is not None else (middle_of(max(buckets)) if buckets else 0.0)
    sketch.add_grouped(buckets, zero, increment.count, increment.total, low, high)
    if point.time_ns >= sketch.last_ns:
        sketch.last_ns, sketch.last = point.time_ns, increment.total / increment.count


def feed_span(
    windows: Windows,
    streams: tuple[Stream, ...],
    subject: Subject,
    instance: str,
    *,
    name: str,
    kind: str,
    parent_span_id: str,
    status: str,
    attributes: Mapping[str, Any],
    start_ns: int,
    end_ns: int,
) -> None:
    """Adds the span to the window of each KPI that means it. Names and texts as the lake writes them."""
    for kpi, stream, feed in streams:
        if not span_matches(feed, name, kind, parent_span_id, status, attributes):
            continue
        value = (end_ns - start_ns) / 1e9 if feed.value == "duration" else as_number(attributes.get(feed.value))
        text = as_text(attributes.get(feed.value)) if kpi.aggregate == "distinct" else "counted"
        if not text or (kpi.aggregate not in ("distinct", "ratio") and not (value >= 0)):
            continue  # a duration below 0 is a clock that went back, not a fast operation
        sketch = windows.sketch(subject, kpi, instance if kpi.aggregate == "growth_per_h" else stream, end_ns)
        if sketch is None:
            continue
        if kpi.aggregate == "distinct":
            sketch.add_texts([text])
        elif kpi.aggregate == "ratio":
            sketch.count += 1
        elif kpi.aggregate == "apdex":
            sketch.add(apdex_score(value, status == "Error", kpi.apdex_threshold_s), 1.0, end_ns)
        else:
            sketch.add(value, 1.0, end_ns)

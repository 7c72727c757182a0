"""Sketches and windows: near the truth, sliding, bounded, and the same after being put away and taken out again."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.processors.feeding import CUMULATIVE, Point, Series, feed_point, streams_of
from hubscope.processors.limits import MAX_EVENTS_A_WINDOW, Flood, spread
from hubscope.processors.overhead import Overhead, union_ns
from hubscope.processors.rules import Rules
from hubscope.processors.rules_file import load
from hubscope.processors.sketch import Sketch, bucket_of, middle_of
from hubscope.processors.windows import KpiValue, Raised, Subject, Windows, growth_per_h

SECOND = 10**9
HUB = Subject("hub", "1")
durations = st.floats(1e-9, 1e9)


@given(durations)
def test_a_bucket_holds_its_value(value: float) -> None:
    """The middle of a value's bucket is within 1.1 % of it."""
    assert middle_of(bucket_of(value)) == pytest.approx(value, rel=0.0111)


@given(st.lists(durations, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_near_the_exact_one(values: list[float], q: float) -> None:
    """Within 1.1 % of the value at that rank."""
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    assert sketch.quantile(q) == pytest.approx(sorted(values)[math.ceil(q * len(values)) - 1], rel=0.0111)


@given(st.lists(durations, max_size=60), st.lists(durations, max_size=60))
def test_merging_is_as_if_all_had_gone_into_one(left: list[float], right: list[float]) -> None:
    """Nothing is lost by merging, nor by JSON."""
    one, two, whole = Sketch(), Sketch(), Sketch()
    for sketch, values in ((one, left), (two, right), (whole, left + right)):
        for value in values:
            sketch.add(value)
    one.merge(Sketch.from_json(json.loads(json.dumps(two.to_json()))))
    assert (one.buckets, one.count, one.low, one.high) == (whole.buckets, whole.count, whole.low, whole.high)
    assert one.total == pytest.approx(whole.total)


def feed(windows: Windows, kpi: str, value: float, time_s: float, stream: str = "0") -> None:
    sketch = windows.sketch(HUB, windows.kpis[kpi], stream, int(time_s * SECOND))
    if sketch is not None:
        sketch.add(value, 1.0, int(time_s * SECOND))


def drained(windows: Windows) -> list[KpiValue | Raised]:
    return list(windows.drain())


def test_the_window_slides(the_rules: Rules) -> None:
    """A sample counts for a minute of event time, then no longer; one that comes too late is counted as late."""
    windows = Windows(the_rules)
    feed(windows, "startup.cold", 9.0, 1000)
    feed(windows, "startup.cold", 1.0, 1030)
    assert [found.value for found in drained(windows) if isinstance(found, KpiValue)] == [9.0]
    feed(windows, "startup.cold", 2.0, 1075)
    assert [found.value for found in drained(windows) if isinstance(found, KpiValue)] == [
        pytest.approx(2.0, rel=0.0111)
    ]
    feed(windows, "startup.cold", 5.0, 1000)
    assert (drained(windows), windows.late) == ([], 1)


def test_spans_without_times_begin_no_window_before_1970(the_rules: Rules) -> None:
    """A window that would begin below 0 begins at 0."""
    windows = Windows(the_rules)
    feed(windows, "startup.cold", 1.0, 0)
    assert [(found.start_ns, found.time_ns) for found in drained(windows) if isinstance(found, KpiValue)] == [(0, 0)]


def test_an_alert_is_told_once_a_crossing(the_rules: Rules) -> None:
    """A value that trembles on the threshold raises one alert; after a fall below 90 % of it the next is told."""
    windows = Windows(the_rules)
    told = []
    for minute, value in enumerate([0.05, 0.11, 0.099, 0.101, 0.12, 0.08, 0.11]):
        feed(windows, "runtime.response_time", value, 100 * minute)
        told.append([found.observed for found in drained(windows) if isinstance(found, Raised)])
    assert told == [[], [0.11], [], [], [], [], [0.11]]


def test_windows_are_bounded(the_rules: Rules) -> None:
    """More services than fit push out the least recently fed, and each is counted."""
    windows = Windows(the_rules, max_windows=10)
    for n in range(25):
        sketch = windows.sketch(Subject(f"s{n}", ""), the_rules.kpi("startup.cold"), "0", SECOND)
        assert sketch is not None
        sketch.add(1.0)
    assert (len(windows), windows.evicted) == (10, 15)
    assert [found.subject.service for found in drained(windows) if isinstance(found, KpiValue)] == [
        f"s{n}" for n in range(15, 25)
    ]


def test_a_snapshot_brings_everything_back(the_rules: Rules) -> None:
    """After JSON and back the next samples give the same values and alerts."""
    one = Windows(the_rules)
    feed(one, "runtime.response_time", 0.3, 100)
    feed(one, "scale.personas", 1.0, 100)
    drained(one)
    two = Windows(the_rules)
    two.restore(json.loads(json.dumps(one.snapshot())))
    for windows in (one, two):
        feed(windows, "runtime.response_time", 0.2, 110)
    assert drained(one) == drained(two)
    assert one.snapshot() == two.snapshot()


def test_growth_is_the_slope_an_hour() -> None:
    """Theil-Sen finds the slope in spite of an outlier; too short a time gives none."""
    points = [(minute * 60 * SECOND, 1000.0 + minute * 2.0) for minute in range(30)]
    points[13] = (13 * 60 * SECOND, 9e9)
    assert growth_per_h(points, 600) == pytest.approx(120.0)
    assert math.isnan(growth_per_h(points[:5], 600))


def test_growth_follows_the_steepest_process(the_rules: Rules) -> None:
    """A process that grows is not hidden by one that does not."""
    windows = Windows(the_rules)
    for minute in range(30):
        feed(windows, "runtime.memory_growth", 5e8, 60 * minute, "flat")
        feed(windows, "runtime.memory_growth", 1e8 + minute * 2**20, 60 * minute, "leaky")
    values = [found for found in drained(windows) if isinstance(found, KpiValue)]
    assert [(v.value, v.status) for v in values] == [(pytest.approx(60 * 2**20), "fail")]


def cumulative(time_s: float, start_s: float, value: float) -> Point:
    return Point(HUB, "run", "requests", {}, int(time_s * SECOND), int(start_s * SECOND), CUMULATIVE, True, value)


def test_cumulative_sums_become_increments() -> None:
    """The first recent point counts whole, later ones by difference, a restart whole, a repeated one not at all."""
    series = Series()
    points = [cumulative(110, 100, 5), cumulative(120, 100, 8), cumulative(120, 100, 8), cumulative(130, 125, 2)]
    found = [series.increment(point) for point in points]
    assert [None if i is None else i.total for i in found] == [5, 3, None, 2]
    old = series.increment(Point(HUB, "other", "requests", {}, 9000 * SECOND, SECOND, CUMULATIVE, True, 700))
    assert old is None  # nobody knows when it grew


@given(st.integers(0, 10**12), st.integers(0, 10**11), st.floats(0, 1e6))
def test_spreading_keeps_the_amount(start: int, length: int, amount: float) -> None:
    """What a long call used is shared among its windows without loss (up to 64 windows)."""
    parts = list(spread(start, start + length, amount, 10 * SECOND))
    assert sum(part for _, part in parts) == pytest.approx(amount)
    assert len({window for window, _ in parts}) == len(parts)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=20))
def test_the_union_of_intervals(pairs: list[tuple[int, int]]) -> None:
    """As counted point by point."""
    intervals = [(start, start + length) for start, length in pairs]
    assert union_ns(intervals) == len({t for start, end in intervals for t in range(start, end)})


def test_a_flood_of_events_is_held_back_and_counted() -> None:
    """20 events a plugin, resource and minute; the rest is counted, and the next minute begins anew."""
    flood = Flood()
    told = sum(flood.lets_through(("hub", "run", "p", "memory"), SECOND * n // 200) for n in range(10_000))
    assert (told, flood.held_back) == (MAX_EVENTS_A_WINDOW, 10_000 - MAX_EVENTS_A_WINDOW)
    assert flood.lets_through(("hub", "run", "p", "memory"), 61 * SECOND)


def test_overhead_counts_calls_side_by_side_once_and_forgets_them() -> None:
    """Nested and parallel calls count once; a request that ends leaves the calls of one that still runs."""
    overhead = Overhead()
    for plugin, start, end in (("a", 0, 4), ("b", 2, 6), ("a", 3, 4), ("c", 8, 20)):
        overhead.call("t", "run", plugin, start * SECOND, end * SECOND)
    overhead.call("t", "other process", "a", 0, 9 * SECOND)
    added = dict(overhead.operation("t", "run", 1 * SECOND, 10 * SECOND, is_last=True))
    assert added == {"": 7.0, "a": 3.0, "b": 4.0, "c": 2.0}
    left = dict(overhead.operation("t", "run", 0, 30 * SECOND, is_last=True))
    assert left == {"": 12.0, "c": 12.0}
    assert (overhead.has("t", "run"), overhead.has("t", "other process")) == (False, True)


@given(st.lists(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20), min_size=1, max_size=4), st.integers(-2, 8))
def test_cumulative_exponential_histograms_keep_their_counts(batches: list[list[float]], scale: int) -> None:
    """Points of one series, whose scale falls as its range grows, add up to what was recorded, near where it was."""
    series, windows = Series(), Windows(load(""))
    kpi = windows.kpis["memory.vector_search_time"]
    streams = tuple(s for s in streams_of(load("")) if s.feed.metric == "hub.vector.search.duration")
    recorded: list[float] = []
    for n, batch in enumerate(batches):
        recorded += batch
        scale_now = scale - n  # as a sender that runs out of buckets does
        buckets: dict[int, float] = {}
        for value in recorded:
            bucket = math.ceil(math.log2(value) * 2.0**scale_now) - 1
            buckets[bucket] = buckets.get(bucket, 0.0) + 1
        point = Point(
            HUB,
            "run",
            "hub.vector.search.duration",
            {},
            (100 + n) * SECOND,
            99 * SECOND,
            CUMULATIVE,
            count=float(len(recorded)),
            total=sum(recorded),
            buckets=buckets,
            scale=scale_now,
            histogram=True,
        )
        feed_point(windows, series, streams, point)
    whole = Sketch()
    for seconds in range(100, 100 + len(batches)):
        sketch = windows.sketch(HUB, kpi, "1", seconds * SECOND)
        assert sketch is not None
        if seconds == 100 or seconds % 10 == 0:  # the slots of the window, each once
            whole.merge(sketch)
    assert whole.count == len(recorded)
    assert whole.total == pytest.approx(sum(recorded))
    width = 2.0 ** (2.0 ** -min(scale - len(batches) + 1, 5))  # of the coarsest bucket, and the sketch's own
    assert min(recorded) / width / 1.03 <= whole.quantile(0.5) <= max(recorded) * width * 1.03

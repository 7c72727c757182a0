"""What lies before a report's window does not count in it: sums and histograms that hold everything since the start."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.analytics import report
from hubscope.analytics.connect import FIRST_POINT_S
from hubscope.analytics.cumulative import added
from hubscope.processors.feeding import MAX_FIRST_SPAN_S

HOUR_S = 3600.0


def kpis(path: Any, since: int | None = None, until: int | None = None) -> dict[str, tuple[float | None, int]]:
    return {kpi.name: (kpi.value, kpi.samples) for kpi in report(path, since=since, until=until).summary.kpis}


def look_ups(run: Any, at_s: float, hits: int, misses: int, **options: Any) -> None:
    for result, n in (("hit", hits), ("miss", misses)):
        run.sum("hub.cache.requests", n, at_s, hub__cache__name="c", hub__cache__result=result, **options)


@pytest.fixture
def run(lake: Any) -> Any:
    """A run with a span every hour for ten hours."""
    made = lake.run()
    for _ in range(10):
        made.trace(lake.span("GET /", 5, kind="Server"), gap_ms=HOUR_S * 1e3)
    made.now_ns = made.now_ns - round(10 * (HOUR_S * 1e9 + 5e6))
    return made


def test_a_counter_counts_what_came_within_the_window(run: Any, lake: Any) -> None:
    """9,000 hits of 10,000 before the window, none of 1,000 within it: 0 % there, 82 % over all."""
    look_ups(run, 1 * HOUR_S, 9000, 1000)
    look_ups(run, 2 * HOUR_S, 9000, 2000)
    path = lake.write()
    since = run.now_ns + round(1.5 * HOUR_S * 1e9)
    assert kpis(path)["memory.cache_hit_rate"] == (pytest.approx(9000 / 11_000), 11_000)
    assert kpis(path, since)["memory.cache_hit_rate"] == (0.0, 1000)
    assert kpis(path, until=since)["memory.cache_hit_rate"] == (0.9, 10_000)
    assert any(b.detector == "low_cache_hit_rate" for b in report(path, since=since).bottlenecks)
    assert not any(b.detector == "low_cache_hit_rate" for b in report(path).bottlenecks)


def test_a_counter_without_a_point_before_the_window_counts_from_its_first_point(run: Any, lake: Any) -> None:
    """It began long before, and nobody knows when it grew: only what came after its first point is the window's."""
    look_ups(run, 2 * HOUR_S, 9000, 1000)
    look_ups(run, 3 * HOUR_S, 9100, 1300)
    since = run.now_ns + round(1.5 * HOUR_S * 1e9)
    assert kpis(lake.write(), since)["memory.cache_hit_rate"] == (0.25, 400)


@pytest.mark.parametrize("ago_s", [60.0, 600.0])
def test_a_counter_that_began_just_before_the_window_counts_whole(ago_s: float, run: Any, lake: Any) -> None:
    """As in the processors: a first point within two minutes of the start says all that was counted, later ones not."""
    since = run.now_ns + round(HOUR_S * 1e9)
    look_ups(run, HOUR_S + 1, 30, 10, start_ns=since - round(ago_s * 1e9))
    expected = (0.75, 40) if ago_s < MAX_FIRST_SPAN_S else (None, 0)
    assert kpis(lake.write(), since)["memory.cache_hit_rate"] == expected


def test_a_restart_within_the_window_counts_from_nothing(run: Any, lake: Any) -> None:
    """Another start, or less than before with the same one: what it holds came after it."""
    start_ns = run.now_ns + round(2.2 * HOUR_S * 1e9)
    look_ups(run, 1 * HOUR_S, 5000, 5000)
    look_ups(run, 2 * HOUR_S, 5100, 5000)  # 100 hits
    look_ups(run, 2.5 * HOUR_S, 200, 50, start_ns=start_ns)  # 200 hits, 50 misses
    look_ups(run, 3 * HOUR_S, 10, 40)  # the first start's series again, below its last point: 10 and 40
    since = run.now_ns + round(1.5 * HOUR_S * 1e9)
    assert kpis(lake.write(), since)["memory.cache_hit_rate"] == (pytest.approx(310 / 400), 400)


def test_deltas_count_by_their_time(run: Any, lake: Any) -> None:
    """The near miss: what a delta before the window says is not taken off anything."""
    look_ups(run, 1 * HOUR_S, 900, 100, temporality=1)
    look_ups(run, 2 * HOUR_S, 20, 80, temporality=1)
    look_ups(run, 3 * HOUR_S, 10, 90, temporality=1)
    since = run.now_ns + round(1.5 * HOUR_S * 1e9)
    assert kpis(lake.write(), since)["memory.cache_hit_rate"] == (pytest.approx(30 / 200), 200)


def test_a_histogram_holds_what_came_within_the_window(run: Any, lake: Any) -> None:
    """Slow searches before the window do not make those within it slow, whichever kind of histogram tells of them."""
    run.histogram("hub.vector.search.duration", [0, 100, 900], [0.01, 0.02], 100.0, HOUR_S)
    run.histogram("hub.vector.search.duration", [50, 100, 900], [0.01, 0.02], 100.4, 2 * HOUR_S)
    run.exponential("hub.ui.frame.duration", {-8: 1000}, 1, 60.0, HOUR_S)
    run.exponential("hub.ui.frame.duration", {-6: 100, -4: 1500}, 0, 70.0, 2 * HOUR_S)
    path = lake.write()
    since = run.now_ns + round(1.5 * HOUR_S * 1e9)
    assert kpis(path)["memory.vector_search_time"] == (0.02, 1050)
    assert kpis(path, since)["memory.vector_search_time"] == (0.005, 50)
    assert kpis(path)["runtime.frame_rate"] == (pytest.approx(1600 / 70), 1600)
    assert kpis(path, since)["runtime.frame_rate"] == (pytest.approx(600 / 10), 600)


def test_a_histogram_of_a_lower_scale_is_compared_at_it() -> None:
    """1,000 samples in bucket -8 at scale 1 are 1,000 in bucket -4 at scale 0; what is left is what came after."""
    common = {"run": "r", "series": "s", "start_ns": 1, "temporality": 2, "low": 0.1, "high": 1.0}
    before = common | {"time_ns": 10, "n": 1002, "total": 60.0, "scale": 1, "zero_count": 2, "offset_index": -8}
    after = common | {"time_ns": 30, "n": 1607, "total": 80.0, "scale": 0, "zero_count": 5, "offset_index": -6}
    points = [
        before | {"bucket_counts": [1000]},
        after | {"bucket_counts": [100, 0, 1500, 2]},
    ]
    (row,) = added(points, since_ns=20)
    assert (row["n"], row["total"], row["scale"], row["zero_count"]) == (605, 20.0, 0, 3)
    assert (row["offset_index"], row["bucket_counts"]) == (-6, [100, 0, 500, 2])
    assert (row["low"], row["high"]) == (0.0, pytest.approx(2**-2.5))
    (whole,) = added(points[1:], since_ns=0)
    assert whole == points[1]


def test_a_histogram_that_began_anew_counts_both_stretches() -> None:
    """Less than before with the same start: what was held until then counts, and so does what came after."""
    common = {"run": "r", "series": "s", "start_ns": 1, "temporality": 2, "low": None, "high": None, "bounds": [1.0]}
    points = [
        common | {"time_ns": t, "n": sum(counts), "total": 1.0, "bucket_counts": counts}
        for t, counts in ((10, [5, 0]), (30, [7, 1]), (40, [2, 0]), (50, [3, 0]))
    ]
    assert [row["bucket_counts"] for row in added(points, since_ns=20)] == [[2, 1], [3, 0]]


def test_the_report_and_the_processors_trust_a_first_point_equally() -> None:
    """One number of seconds, written in both because neither imports the other."""
    assert FIRST_POINT_S == MAX_FIRST_SPAN_S

"""Slow drifts: over the runs of one version, and of memory within long runs. Never over per-minute points.

Theil-Sen gives the slope, Mann-Kendall decides. On raw autocorrelated series no test is safe; one median a run, or
ten block medians of a long run, is what these may be fed with.
"""

from __future__ import annotations

import statistics as plain
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import numpy as np

from hubscope.analytics import metrics, statistics
from hubscope.analytics.findings import counted
from hubscope.analytics.model import RunValue, Trend
from hubscope.analytics.scope import SECONDS_PER_DAY, Scope, rfc3339

# Eight values are the least with which Mann-Kendall can reach ALPHA by more than one order.
MIN_POINTS: Final = 8
TOP_OPERATIONS: Final = 5
WARM_UP: Final = 0.2  # of a run: caches fill and arenas grow
LONG_RUN_S: Final = 1800.0
MEMORY_POINTS: Final = 40
MEMORY_FLOOR: Final = 10 * 2**20  # bytes an hour: the plan's target, and the floor below which nothing is claimed
LEAK_RUNS: Final = 3


def detect(scope: Scope) -> tuple[Trend, ...]:
    """Trends of one version's runs: its largest operations, its start, and memory within its long runs."""
    series = sorted(metrics.root_durations(scope), key=lambda s: -s.total_s)[:TOP_OPERATIONS]
    series += metrics.startup_durations(scope)
    found = [_over_runs(scope, s.metric, s.dimensions, s.unit, s.values) for s in series]
    memory = _memory(scope)
    return (*found, *((memory,) if memory else ()))


def _over_runs(
    scope: Scope, metric: str, dimensions: Mapping[str, str], unit: str, values: Mapping[str, float]
) -> Trend:
    runs = [run for run in scope.runs if run.id in values]
    points = tuple(RunValue(r.instance, r.version or None, rfc3339(r.first_ns), values[r.id]) for r in runs)
    named = {"service": scope.service, **dimensions}
    if len(runs) < MIN_POINTS:
        why = f"too few: {counted(len(runs), 'run')} of {scope.name or 'no version'}, {MIN_POINTS} are needed"
        return Trend(metric, named, None, None, None, f"{unit}/day", len(runs), "unknown", (), why, points)
    days = np.array([r.first_ns for r in runs], dtype=np.float64) / 1e9 / SECONDS_PER_DAY
    y = np.array([values[r.id] for r in runs])
    s, p = statistics.mann_kendall(y)
    slope = statistics.theil_sen(days - days[0], y) if days[-1] > days[0] else None
    if slope is None:
        return Trend(metric, named, None, None, None, f"{unit}/day", len(runs), "unknown", (), "all at once", points)
    verdict = "flat" if p > statistics.ALPHA else "rising" if s > 0 else "falling"
    reason = f"Mann-Kendall over {len(runs)} runs: p = {p:.2g}"
    return Trend(
        metric, named, slope.slope, slope.low, slope.high, f"{unit}/day", len(runs), verdict, (), reason, points
    )


def _memory(scope: Scope) -> Trend | None:
    """Growth of resident memory an hour, judged within each long run; rising needs three runs that agree."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in scope.rows("memory_points"):
        points[row["run"]].append((row["time_ns"] / 3.6e12, float(row["bytes"])))
    if not points:
        return None
    dimensions = {"service": scope.service}
    slopes: dict[str, float] = {}
    growing = 0
    for run, series in points.items():
        begin, end = series[0][0], series[-1][0]
        steady = [(t, v) for t, v in series if t >= begin + WARM_UP * (end - begin)]
        if (end - begin) * 3600 < LONG_RUN_S or len(steady) < MEMORY_POINTS:
            continue
        hours, bytes_ = statistics.block_medians([t for t, _ in steady], [v for _, v in steady])
        slope = statistics.theil_sen(hours, bytes_).slope
        s, p = statistics.mann_kendall(bytes_)
        slopes[run] = slope
        growing += s > 0 and p <= 0.05 and slope >= MEMORY_FLOOR
    values = tuple(
        RunValue(r.instance, r.version or None, rfc3339(r.first_ns), slopes[r.id]) for r in scope.runs if r.id in slopes
    )
    name, unit, n = "process.memory.growth", "By/h", len(slopes)
    if n < LEAK_RUNS:
        why = f"too few: {n} runs of half an hour or more, {LEAK_RUNS} are needed; a short run's growth is its warm-up"
        return Trend(name, dimensions, None, None, None, unit, n, "unknown", (), why, values)
    interval = statistics.mean_interval(list(slopes.values()))
    assert interval is not None
    verdict = "rising" if growing >= LEAK_RUNS and growing > n / 2 else "flat"
    why = f"{growing} of {n} long runs grew by more than {MEMORY_FLOOR / 2**20:.0f} MiB/h after their warm-up"
    return Trend(
        name, dimensions, plain.median(slopes.values()), interval[1], interval[2], unit, n, verdict, (), why, values
    )

"""KPIs from raw rows, by the rules that the processors use: a value a run, their typical value, its interval, a status.

Nothing fed is unknown, never 0. Where a run has one sample only (a start), the aggregate is taken over the runs;
otherwise the value is the median over runs of each run's own aggregate.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hubscope.analytics import cumulative, statistics
from hubscope.analytics.connect import SPAN_COST_BUSY_NS
from hubscope.analytics.engine import source
from hubscope.analytics.findings import duration, size
from hubscope.analytics.model import Kpi, RunValue
from hubscope.analytics.scope import Row, Scope, rfc3339
from hubscope.processors.rules import Feed
from hubscope.processors.rules import Kpi as Rule
from hubscope.semconv import HUB_PLUGIN_ID, METRIC_PLUGIN_OVERHEAD, OWN_PHASE

_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_SHARES: Final = ("ratio", "apdex")  # between 0 and 1, unless a rule counts more of one thing than of another
_MARKER: Final = "/* feed */"


@dataclasses.dataclass(frozen=True)
class Measured:
    """One KPI in one run."""

    value: float
    samples: int


def measure(scope: Scope, rule: Rule) -> dict[str, Measured]:
    """The KPI's value in each run that feeds it. The first feed with any sample counts, as in the processors.

    Workers are no runs: what each process of a run shows is one value of the run.
    """
    return _of_runs(scope, rule, _of_processes(scope, rule))


def _of_runs(scope: Scope, rule: Rule, measured: dict[str, Measured]) -> dict[str, Measured]:
    return {run: _together(rule.aggregate, found) for run, found in scope.by_application(measured).items()}


def _together(aggregate: str, processes: Sequence[Measured]) -> Measured:
    """One value of a run's processes: exact for averages, shares and extremes; else their median, by samples."""
    if len(processes) == 1:
        return processes[0]
    samples = sum(measured.samples for measured in processes)
    values = np.array([measured.value for measured in processes])
    weights = np.array([max(measured.samples, 1) for measured in processes], dtype=np.float64)
    if aggregate in ("max", "growth_per_h", "distinct"):
        return Measured(float(values.max()), samples)
    if aggregate == "min":
        return Measured(float(values.min()), samples)
    if aggregate in ("mean", *_SHARES):
        return Measured(float(np.average(values, weights=weights)), samples)
    order = np.argsort(values)
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return Measured(float(values[order][middle]), samples)


def _of_processes(scope: Scope, rule: Rule) -> dict[str, Measured]:
    if rule.aggregate == "ratio":
        return _ratio(scope, rule)
    for feed in rule.feeds:
        found = _of_plugin_spans(scope, rule, feed)
        if not found:
            found = _of_metric(scope, rule, feed) if feed.metric else _of_spans(scope, rule, feed)
        if found:
            return found
    return {}


def evaluate(scope: Scope, rule: Rule) -> Kpi | None:
    """The KPI over the scope's runs, or None where nothing feeds it."""
    by_run = measure(scope, rule)
    runs = [run for run in scope.runs if run.id in by_run]
    if not runs:
        return None
    values = [by_run[run.id].value for run in runs]
    samples = sum(by_run[run.id].samples for run in runs)
    value, interval = _typical(rule, values, samples)
    low, high = interval if interval is not None else (None, None)
    status, reason = _judge(rule, value, low, high, len(runs), samples)
    own_s = _own_set_up_s(scope, rule, {run.id for run in runs}) if status == "fail" else 0.0
    if rule.is_missed_by_own_set_up(value, own_s):
        without = duration(max(value - own_s, 0.0))
        status, reason = "unknown", f"{duration(own_s)} of it are hubscope's own set-up; without it about {without}"
    if status == "fail":
        status, reason = _despite_recording(scope, rule, value, reason)
    return Kpi(
        name=rule.name,
        unit=rule.unit,
        target=str(rule.target) if rule.target else None,
        value=value,
        low=low,
        high=high,
        runs=len(runs),
        samples=samples,
        status=status,
        reason=reason,
        service=scope.service,
        aggregate=rule.aggregate,
        severity=rule.severity,
        source=rule.source,
        points=tuple(
            RunValue(run.instance, run.version or None, rfc3339(run.first_ns), by_run[run.id].value) for run in runs
        ),
    )


def _own_set_up_s(scope: Scope, rule: Rule, runs: set[str]) -> float:
    """What of a start-up KPI in seconds is hubscope's own set-up, typically; 0.0 for any other KPI."""
    if not rule.has_own_set_up:
        return 0.0
    phases = scope.rows("startup_phases")
    own = [float(row["sum_s"]) for row in phases if row["phase"] == OWN_PHASE and row["run"] in runs]
    return float(np.median(own)) if own else 0.0


def _despite_recording(scope: Scope, rule: Rule, value: float, reason: str) -> tuple[str, str]:
    """Status and reason of a target that is missed: unknown where recording the operations' spans may be all of it."""
    without = _less_recording(scope, rule)
    if without is None or math.isclose(without, value, rel_tol=0.01):
        return "fail", reason
    cost = f"up to {duration(SPAN_COST_BUSY_NS / 1e9)} each; without it it might be {size(without, rule.unit)}"
    if rule.judge(without) != "fail":
        return "unknown", f"recording these operations' many spans may be what took so long, {cost}"
    return "fail", f"{reason}; recording their many spans took part of it, {cost}"


def _less_recording(scope: Scope, rule: Rule) -> float | None:
    """The KPI where each operation took less by what recording its spans may have taken, if that is 30 % of it or more.

    None where no time of spans feeds it. An estimate of how little it may be, not of what it is.
    """
    if rule.aggregate not in (*_QUANTILES, "mean", "max", "apdex"):
        return None
    for feed in rule.feeds:
        if feed.metric or feed.value != "duration":
            return None
        found = _of_runs(scope, rule, _of_spans(scope, rule, feed, "kpi_spans_less_recording"))
        if found:
            values = [measured.value for measured in found.values()]
            return _typical(rule, values, sum(measured.samples for measured in found.values()))[0]
    return None


def unfed(rule: Rule) -> Kpi:
    """A KPI that nothing feeds: unknown, because."""
    return Kpi(
        name=rule.name,
        unit=rule.unit,
        target=str(rule.target) if rule.target else None,
        value=None,
        low=None,
        high=None,
        runs=0,
        samples=0,
        status="unknown",
        reason=rule.unknown,
        aggregate=rule.aggregate,
        severity=rule.severity,
        source=rule.source,
    )


def _typical(rule: Rule, values: Sequence[float], samples: int) -> tuple[float, tuple[float, float] | None]:
    one_sample_a_run = samples == len(values)
    if one_sample_a_run and rule.aggregate in _QUANTILES:
        q = _QUANTILES[rule.aggregate]
        interval = statistics.percentile_interval(values, q) if len(values) >= 2 else None
        return float(np.quantile(values, q)), interval
    value = float(np.median(values))
    interval = statistics.typical_interval(values)
    # The interval is Student's for the typical run; a median outside it (three uneven runs) widens it.
    if interval is None:
        return value, None
    low, high = min(interval[0], value), max(interval[1], value)
    # Student's interval knows no bounds: a score of two uneven runs would reach to 121 %.
    is_share = rule.aggregate in _SHARES and max(values) <= 1.0
    return value, (max(low, 0.0), min(high, 1.0)) if is_share else (low, high)


def _judge(rule: Rule, value: float, low: float | None, high: float | None, runs: int, samples: int) -> tuple[str, str]:
    status = rule.judge(value)
    seen = f"{runs} run{'s' * (runs != 1)}, {samples} sample{'s' * (samples != 1)}"
    if status == "unknown":
        return status, rule.reason(value)
    assert rule.target is not None
    if low is None or high is None:
        return status, f"{seen}: one run gives no interval"
    if rule.judge(low) != rule.judge(high):
        return "unknown", f"{seen}: too close to call, the interval holds the target {rule.target}"
    return status, f"{seen}: the whole interval {'meets' if status == 'pass' else 'misses'} the target"


def like(glob: str) -> str:
    """A `*`/`?` glob as a LIKE pattern. Raises ValueError for character classes, which LIKE has not."""
    if "[" in glob:
        raise ValueError(f"the pattern {glob!r} holds a character class")
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _conditions(feed: Feed, attributes: str) -> tuple[str, dict[str, Any]]:
    """SQL conditions of bound values only, and the values."""
    values: dict[str, Any] = {}
    parts: list[str] = []

    def bound(value: str) -> str:
        name = f"feed_{len(values)}"
        values[name] = value
        return f"${name}"

    def matches(text: str, globs: Sequence[str]) -> str:
        wanted = [f"{text} LIKE {bound(like(g))} ESCAPE '\\'" for g in globs if not g.startswith("!")]
        refused = [f"{text} NOT LIKE {bound(like(g[1:]))} ESCAPE '\\'" for g in globs if g.startswith("!")]
        return " AND ".join([*([f"({' OR '.join(wanted)})"] if wanted else []), *refused])

    if feed.span and feed.span != ("*",):
        parts.append(matches("SpanName", feed.span))
    if feed.kind:
        parts.append(f"SpanKind IN ({', '.join(bound(kind) for kind in feed.kind)})")
    if feed.root:
        parts.append("ParentSpanId = ''")
    if feed.status:
        parts.append(matches("StatusCode", (feed.status,)))
    for key, globs in feed.where.items():
        # The key is spelled out so that the loader can put the lake's own column there; rules_file.load() checked it.
        quoted = key.replace("'", "''")
        parts.append(matches(f"coalesce(attr({attributes}, '{quoted}'), '')", globs))
    return "".join(f" AND {part}" for part in parts if part), values


def _run_query(scope: Scope, name: str, feed: Feed, **values: Any) -> list[Row]:
    attributes = "SpanAttributes" if name.startswith("kpi_spans") else "Attributes"
    data = scope.data
    if "metric" in values:
        sent = data.rows("metric_names", service=scope.service)
        if not any(row["metric"] == values["metric"] for row in sent):
            return []
    condition, bound = _conditions(feed, attributes)
    sql = source(name).replace(_MARKER, condition)
    rows = data.engine.run(
        sql, service=scope.service, since_ns=data.since_ns, until_ns=data.until_ns, **values, **bound
    )
    ids = {run.id for run in scope.runs}
    return [row for row in rows if row["run"] in ids]


def _of_spans(scope: Scope, rule: Rule, feed: Feed, query: str = "kpi_spans") -> dict[str, Measured]:
    # An Apdex is counted against its threshold; everything else ignores it.
    rows = _run_query(scope, query, feed, value=feed.value, threshold=rule.apdex_threshold_s)
    ratings = _ratings(scope, rule) if rule.aggregate == "apdex" else {}
    found: dict[str, Measured] = {}
    for row in rows:
        if rule.aggregate == "distinct":
            if row["texts"]:
                found[row["run"]] = Measured(float(row["distinct_values"]), row["texts"])
        elif rule.aggregate == "apdex":
            score, count = ratings.get(row["run"], (0.0, 0))
            good = float(row["satisfied"]) + float(row["tolerating"]) / 2 + score
            if row["n"] + count:
                found[row["run"]] = Measured(good / (row["n"] + count), row["n"] + count)
        elif rule.aggregate == "reciprocal_mean":
            if row["mean"]:
                found[row["run"]] = Measured(1 / row["mean"], row["n"])
        elif row.get(rule.aggregate) is not None:
            found[row["run"]] = Measured(float(row[rule.aggregate]), row["n"])
    return found


def _of_plugin_spans(scope: Scope, rule: Rule, feed: Feed) -> dict[str, Measured]:
    """`hub.plugin.overhead` of all plugins together from the spans it is derived from; {} for any other feed.

    The collector derives its points for a service, not for a run: they name no service.instance.id and would belong to
    none. An application that derives them itself and sends no spans is read by its points.
    """
    if feed.metric != METRIC_PLUGIN_OVERHEAD or dict(feed.where) != {HUB_PLUGIN_ID: ("",)}:
        return {}
    return {
        row["run"]: Measured(float(row[rule.aggregate]), row["n"])
        for row in scope.rows("plugin_overhead")
        if row["operation"] is None and row.get(rule.aggregate) is not None
    }


def _ratings(scope: Scope, rule: Rule) -> dict[str, tuple[float, int]]:
    if rule.ratings is None:
        return {}
    return {
        run: (sum(h["total"] for h in points), sum(h["n"] for h in points))
        for run, points in _histograms(scope, rule.ratings).items()
    }


def _of_metric(scope: Scope, rule: Rule, feed: Feed) -> dict[str, Measured]:
    histograms = _histograms(scope, feed)
    if histograms:
        found = {run: _aggregate_histogram(rule.aggregate, points) for run, points in histograms.items()}
        return {run: measured for run, measured in found.items() if measured is not None}
    points: dict[str, list[Row]] = defaultdict(list)
    for row in _run_query(scope, "kpi_points", feed, metric=feed.metric):
        if row["value"] is not None:
            points[row["run"]].append(row)
    result: dict[str, Measured] = {}
    for run, rows in points.items():
        measured = _aggregate_points(rule, rows)
        if measured is not None:
            result[run] = measured
    return result


def _aggregate_points(rule: Rule, rows: list[Row]) -> Measured | None:
    values = np.array([row["value"] for row in rows], dtype=np.float64)
    if rule.aggregate == "growth_per_h":
        return _growth_per_h(rule, rows)
    if rule.aggregate in _QUANTILES:
        return Measured(float(np.quantile(values, _QUANTILES[rule.aggregate])), len(values))
    if rule.aggregate == "reciprocal_mean":
        return Measured(1 / float(values.mean()), len(values)) if values.mean() else None
    simple = {"mean": values.mean(), "min": values.min(), "max": values.max()}
    if rule.aggregate in simple:
        return Measured(float(simple[rule.aggregate]), len(values))
    if rule.aggregate == "last":
        return Measured(float(max(rows, key=lambda r: r["time_ns"])["value"]), len(values))
    return None


def _growth_per_h(rule: Rule, rows: list[Row]) -> Measured | None:
    """Theil-Sen slope on block medians of the steepest series; None where it was not seen long enough."""
    series: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        series[row["series"]].append(row)
    slopes = []
    for points in series.values():
        hours = np.array([p["time_ns"] for p in points], dtype=np.float64) / 3.6e12
        hours -= hours.min()
        if hours.max() * 3600 >= max(rule.minimum_window_s, 1.0) and len(points) >= 10:
            t, v = statistics.block_medians(hours, [p["value"] for p in points])
            slopes.append(statistics.theil_sen(t, v).slope)
    return Measured(max(slopes), len(rows)) if slopes else None


def _ratio(scope: Scope, rule: Rule) -> dict[str, Measured]:
    assert rule.numerator is not None
    assert rule.denominator is not None
    below = _counts(scope, rule.denominator)
    above = _counts(scope, rule.numerator)
    return {run: Measured(above.get(run, 0.0) / n, round(n)) for run, n in below.items() if n > 0}


def _counts(scope: Scope, feed: Feed) -> dict[str, float]:
    """Spans counted, or what a counter grew by, or the samples of a histogram."""
    if not feed.metric:
        rows = _run_query(scope, "kpi_spans", feed, value="duration", threshold=math.inf)
        return {row["run"]: float(row["counted"]) for row in rows}
    totals: dict[str, float] = defaultdict(float)
    for row in _run_query(scope, "counter_growth", feed, metric=feed.metric):
        totals[row["run"]] += row["grown"] or 0.0
    if totals:
        return dict(totals)
    return {run: float(sum(point["n"] for point in points)) for run, points in _histograms(scope, feed).items()}


def _histograms(scope: Scope, feed: Feed) -> dict[str, list[Row]]:
    """What histograms of both kinds got within the window, by run."""
    found: dict[str, list[Row]] = defaultdict(list)
    for query in ("kpi_histograms", "kpi_explicit_histograms"):
        points = _run_query(scope, query, feed, metric=feed.metric)
        for row in cumulative.added(points, scope.data.since_ns):
            found[row["run"]].append(row)
    return dict(found)


def _aggregate_histogram(aggregate: str, points: list[Row]) -> Measured | None:
    count = sum(p["n"] for p in points)
    total = sum(p["total"] or 0.0 for p in points)
    lows = [p["low"] for p in points if p["low"] is not None]
    highs = [p["high"] for p in points if p["high"] is not None]
    if aggregate == "mean":
        return Measured(total / count, count)
    if aggregate == "reciprocal_mean":
        return Measured(count / total, count) if total else None
    if aggregate == "min":
        return Measured(min(lows), count) if lows else None
    if aggregate == "max":
        return Measured(max(highs), count) if highs else None
    if aggregate in _QUANTILES:
        return Measured(quantile_of(points, _QUANTILES[aggregate], lows, highs), count)
    return None


def quantile_of(points: list[Row], q: float, lows: list[float], highs: list[float]) -> float:
    """A quantile of merged histograms: the middle of the bucket that holds its rank, in the data's range.

    OpenTelemetry metrics data model, "ExponentialHistogram": bucket i is (base**i, base**(i+1)], base = 2**(2**-scale);
    histograms of different scales merge at the coarsest.
    """
    exponential = [p for p in points if "scale" in p]
    scale = min((p["scale"] for p in exponential), default=0)
    buckets: dict[int, int] = defaultdict(int)
    zeros = 0
    for p in exponential:
        zeros += p["zero_count"] or 0
        for position, n in enumerate(p["bucket_counts"] or ()):
            buckets[((p["offset_index"] or 0) + position) >> (p["scale"] - scale)] += n
    weights: dict[float, float] = defaultdict(float)
    weights[0.0] += zeros
    for index, n in buckets.items():
        weights[cumulative.exponential_middle(index, scale)] += n
    for p in points:
        if "bounds" in p:
            for position, n in enumerate(p["bucket_counts"] or ()):
                weights[cumulative.explicit_middle(position, p["bounds"] or ())] += n
    rank = q * sum(weights.values())
    seen, value = 0.0, 0.0
    for middle in sorted(weights):
        if seen >= rank and seen:
            break
        if weights[middle]:
            seen += weights[middle]
            value = middle
    value = max(value, min(lows)) if lows else value
    return min(value, max(highs)) if highs else value


def all_of(scopes: Sequence[Scope], rules: Sequence[Rule]) -> tuple[Kpi, ...]:
    """Every KPI for every service that feeds it; one unknown entry for a KPI that none feeds."""
    found: list[Kpi] = []
    for rule in rules:
        fed = [kpi for kpi in (evaluate(scope, rule) for scope in scopes) if kpi is not None]
        found.extend(fed or [unfed(rule)])
    return tuple(found)

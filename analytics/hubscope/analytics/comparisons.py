"""Two groups of runs, metric by metric: better, worse, same or unknown, with false discovery controlled over all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np

from hubscope.analytics import kpis, metrics, mixture, statistics
from hubscope.analytics.findings import counted, duration
from hubscope.analytics.metrics import Series
from hubscope.analytics.model import Comparison, detectable
from hubscope.analytics.scope import Scope

# A series that holds less than this share of all the time in its metric is not compared: nobody would act on it, and
# each further metric costs the others power. The choice looks at time, never at the difference.
MINIMUM_SHARE: Final = 0.001

VERDICTS: Final = ("worse", "better", "new", "gone", "same", "unknown")  # as they are listed
_TOO_FEW: Final = f"fewer than {statistics.MIN_RUNS} runs on a side"


@dataclasses.dataclass(frozen=True)
class _Pair:
    before: Series
    after: Series
    before_group: str
    after_group: str
    difference: statistics.Difference | None
    reason: str


def compare_groups(pairs: Sequence[tuple[Scope, Scope]]) -> tuple[Comparison, ...]:
    """Every metric that both groups of a pair have; p-values adjusted over all pairs together. And each root operation
    that only one of them has: new, or gone.

    Worst first, then better, new, gone, same, unknown; within each by the time at stake.
    """
    judged = [[_judge(*both) for both in _common(*pair)] for pair in pairs]
    found = [one for each in judged for one in each]
    adjusted = statistics.benjamini_hochberg([p.difference.p_value for p in found if p.difference is not None])
    values = iter(adjusted)
    compared = []
    for (before, after), each in zip(pairs, judged, strict=True):
        told = [_comparison(pair, next(values) if pair.difference is not None else None) for pair in each]
        compared += [_unmixed(one, before, after, told) for one in told]
    compared += [one for pair in pairs for one in _one_sided(*pair)]
    order = {verdict: place for place, verdict in enumerate(VERDICTS)}
    return tuple(
        sorted(
            compared,
            key=lambda c: (order[c.verdict], -abs(c.contribution_s or 0.0), c.metric, sorted(c.dimensions.items())),
        )
    )


def _unmixed(one: Comparison, before: Scope, after: Scope, told: Sequence[Comparison]) -> Comparison:
    """A KPI that got better or worse by what it is pooled from is unknown (see mixture.py)."""
    because = mixture.doubt(one.dimensions.get("kpi", ""), one.verdict, before, after, told)
    return dataclasses.replace(one, verdict="unknown", reason=because) if because else one


def _common(before: Scope, after: Scope) -> list[tuple[Series, Series, Scope, Scope]]:
    result = []
    for function in (*metrics.COMPARED, _kpi_series):
        old = {series.key: _of_runs(series, before) for series in function(before)}
        new = {series.key: _of_runs(series, after) for series in function(after)}
        total = sum(s.total_s for s in (*old.values(), *new.values()))
        for key in sorted(old.keys() & new.keys()):
            if old[key].least and not any((*old[key].values.values(), *new[key].values.values())):
                continue  # nothing was recorded on either side
            weight = old[key].total_s + new[key].total_s
            if total == 0 or weight >= MINIMUM_SHARE * total:
                result.append((old[key], new[key], before, after))
    return result


def _of_runs(series: Series, scope: Scope) -> Series:
    """Workers are no runs: one value a run, the median of its processes'."""
    by_run = scope.by_application(series.values)
    return dataclasses.replace(series, values={run: float(np.median(found)) for run, found in by_run.items()})


def _one_sided(before: Scope, after: Scope) -> list[Comparison]:
    """Root operations that only one side has. One that not every run of that side shows may be chance: unknown."""
    old, new = ({s.key: _of_runs(s, scope) for s in metrics.root_durations(scope)} for scope in (before, after))
    found = []
    for key in sorted(old.keys() ^ new.keys()):
        is_new = key in new
        series, scope = (new[key], after) if is_new else (old[key], before)
        median, seen = float(np.median(_values(series))), len(series.values)
        runs = len(scope.applications)
        in_all = seen >= runs
        found.append(
            Comparison(
                metric=series.metric,
                dimensions=dict(series.dimensions),
                before=None if is_new else median,
                after=median if is_new else None,
                change=None,
                low=None,
                high=None,
                verdict=("new" if is_new else "gone") if in_all else "unknown",
                minimum_detectable_effect=None,
                runs_before=0 if is_new else seen,
                runs_after=seen if is_new else 0,
                unit=series.unit,
                reason=f"only {scope.name or 'one side'} has it, in {seen} of {counted(runs, 'run')}",
                before_group=before.name,
                after_group=after.name,
            )
        )
    return found


def _kpi_series(scope: Scope) -> list[Series]:
    """KPIs with a target. Those without one, and scales that a program only shows when asked for, are not compared."""
    found = []
    for rule in scope.rules.kpis:
        if rule.target is None or rule.capability:
            continue
        values = {run: measured.value for run, measured in kpis.measure(scope, rule).items()}
        if values:
            better_high = not rule.target.lower_is_better
            found.append(Series("kpi", {"kpi": rule.name}, rule.unit, values, higher_is_better=better_high))
    return found


def _judge(old: Series, new: Series, before: Scope, after: Scope) -> _Pair:
    a, b = _values(old), _values(new)
    difference, reason = None, ""
    if min(len(a), len(b)) < statistics.MIN_RUNS:
        reason = f"{_TOO_FEW}: {len(a)} before, {len(b)} after"
    elif min(*a, *b) <= 0:
        reason = "a value of 0 or less has no ratio"
    elif old.unit == "s" and max(float(np.median(a)), float(np.median(b))) < statistics.FLOOR_S:
        reason = "under 20 µs, too short to judge"
    else:
        difference = statistics.compare_runs(a, b)
    return _Pair(old, new, before.name, after.name, difference, reason)


def _values(series: Series) -> list[float]:
    return [max(series.values[run], series.least) for run in sorted(series.values)]


def _comparison(pair: _Pair, adjusted_p: float | None) -> Comparison:
    a, b = _values(pair.before), _values(pair.after)
    d = pair.difference
    reason = pair.reason
    verdict = "unknown"
    if d is not None and adjusted_p is not None:
        verdict = statistics.verdict(d, adjusted_p, higher_is_better=pair.before.higher_is_better)
        told = verdict in ("better", "worse")
        if told and pair.before.unit == "s" and abs(d.after - d.before) < statistics.WAKING_S:
            verdict = "unknown"
            reason = f"under {duration(statistics.WAKING_S)} apart: a processor that slept is that much slower"
        elif told and not statistics.are_apart(_values(pair.before), _values(pair.after)):
            verdict = "unknown"
        if verdict == "same":
            reason = f"the whole 95 % interval lies within ±{statistics.EQUIVALENCE_MARGIN:.0%}"
        elif verdict == "unknown" and not reason:
            reason = (
                f"not certain at {statistics.ALPHA:.0%} over all metrics of this report, "
                f"and not within ±{statistics.EQUIVALENCE_MARGIN:.0%}; "
                f"{detectable(d.minimum_detectable_effect)}"
            )
    before, after = (d.before, d.after) if d else (float(np.median(a)), float(np.median(b)))
    return Comparison(
        metric=pair.before.metric,
        dimensions=dict(pair.before.dimensions),
        before=before,
        after=after,
        change=d.change if d else None,
        low=d.low if d else None,
        high=d.high if d else None,
        verdict=verdict,
        minimum_detectable_effect=d.minimum_detectable_effect if d else None,
        runs_before=len(a),
        runs_after=len(b),
        unit=pair.before.unit,
        reason=reason,
        p_value=adjusted_p,
        before_group=pair.before_group,
        after_group=pair.after_group,
        contribution_s=after - before if pair.before.unit == "s" else None,
    )

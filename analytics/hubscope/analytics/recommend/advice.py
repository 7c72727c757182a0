"""What a recommender gets and returns, and how a predicted range takes in the runs' own spread."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hubscope.analytics.findings import PREDICTION_WIDTH, fingerprint, size
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck, NotJudged, Predicted, Recommendation
from hubscope.analytics.recommend.whole import longest_s
from hubscope.analytics.scope import Scope
from hubscope.analytics.statistics import t_quantile

ONE_RUN: Final = (
    "from one run, which does not tell how far runs differ: an estimate, not kept as a prediction; two more runs give "
    "it a range"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One group of runs, its findings, and the databases that may be looked into."""

    scope: Scope
    findings: tuple[Bottleneck, ...]
    databases: tuple[Path, ...] = ()

    def of(self, detector: str) -> list[Bottleneck]:
        return [finding for finding in self.findings if finding.detector == detector]


@dataclasses.dataclass(frozen=True)
class Advice:
    recommendations: tuple[Recommendation, ...] = ()
    not_judged: tuple[NotJudged, ...] = ()


def not_made(finding: Bottleneck, what: str, because: str) -> Advice:
    """Said instead of a prediction: it names the finding, so that none is left without a word."""
    said = NotJudged(
        f"what {what} would save ({finding.operation or 'no root operation'})", because, finding.fingerprints
    )
    return Advice(not_judged=(said,))


def together(advices: Sequence[Advice]) -> Advice:
    return Advice(
        tuple(r for advice in advices for r in advice.recommendations),
        tuple(n for advice in advices for n in advice.not_judged),
    )


def _spread(values: Sequence[float]) -> float | None:
    """The factor by which the runs' typical value may be off either way, at 90 %: Student's on logarithms.

    Durations are multiplied by what slows a machine down, and none is negative. A twentieth at least: two groups of
    runs of one program are seldom nearer than that. Runs in which the value was 0 have no logarithm: the others speak
    for the spread, and where fewer than two are left nothing does (None): one run of a Datasette put 321 ms on an
    import that four runs minutes later put 89 ms on.
    """
    logarithms = [math.log(value) for value in values if value > 0]
    if len(logarithms) < 2:
        return None
    error = statistics.stdev(logarithms) / len(logarithms) ** 0.5
    return max(math.exp(min(t_quantile(0.95, len(logarithms) - 1) * error, 700.0)), 1.05)


def recommended(
    case: Case,
    finding: Bottleneck,
    kind: str,
    *,
    change: str,
    where: str,
    metric: str,
    dimensions: Mapping[str, str],
    now: float,
    then: float,
    then_low: float,
    then_high: float,
    method: str,
    saved_s: float,
    verify: str,
    unit: str = "s",
    mends: Sequence[Bottleneck] = (),
) -> Advice:
    """A recommendation whose range holds what is not known about `then` and how unlike each other the runs are.

    `saved_s`: seconds that the change would have saved in all of the observed time. `mends`: the other findings that
    the same change mends.

    low..high is a 90 % range: the method's own (`then_high`..`then_low`), made wider on both sides by the factor of
    the runs' own spread (see `_spread`), and nothing in it is more than the longest whole (see whole.py). A range
    that reaches down to no saving, or is wider than PREDICTION_WIDTH, is said not to be known instead. One run has no
    spread: the saving is an estimate without a range, if the method alone does not leave it too wide.
    """
    values = list(observe(case.scope, metric, dimensions).values())
    spread = _spread(values)
    factor = spread or 1.0
    whole = longest_s(case.scope, metric, dimensions)
    most = math.inf if whole is None else whole
    saving = min(now - then, most)
    least_known, most_known = min(now - then_high, now - then), max(now - then_low, now - then)
    low, high = min(least_known / factor, saving), min(most_known * factor, most)
    answered = tuple(dict.fromkeys(f for one in (finding, *mends) for f in one.fingerprints))
    if _is_too_wide(low, high):
        by_method = _is_too_wide(least_known, min(most_known, most))
        because = _why_too_wide(case, finding, len(values), by_method, f"{size(low, unit)} to {size(high, unit)}", low)
        return Advice(not_judged=(NotJudged(f"what it would save: {change} ({finding.operation})", because, answered),))
    spent = case.scope.spent(saved_s * saving / (now - then))
    made = Recommendation(
        fingerprint=fingerprint(kind, case.scope.service, finding.fingerprint),
        for_=answered,
        change=change,
        where=where,
        predicted=Predicted(
            metric=metric,
            unit=unit,
            now=now,
            then=now - saving,
            saving=saving,
            low=low if spread else None,
            high=high if spread else None,
            method=method if spread else f"{method}; {ONE_RUN}",
            dimensions=dict(dimensions),
            saving_seconds_per_day=spent.per_day,
            saving_observed_seconds=spent.seconds,
            observed_for_seconds=spent.observed_s,
            saving_per_day_reason=spent.reason,
        ),
        verify=verify,
        service=case.scope.service,
        version=case.scope.name or None,
    )
    return Advice((made,))


def _is_too_wide(low: float, high: float) -> bool:
    return low <= 0 or high > PREDICTION_WIDTH * low


def _why_too_wide(case: Case, finding: Bottleneck, runs: int, by_method: bool, span: str, low: float) -> str:
    """What leaves the range so wide, the runs or the method, and what would narrow it."""
    room = f"room for anything from {span}" if low > 0 else "room for no saving at all"
    if by_method or runs < 2:
        can_be_timed = finding.detector in ("slow_query", "n_plus_one") and not case.databases
        way = ": --database FILE would let it be timed" if can_be_timed else ""
        return f"what was measured of it leaves {room}{way}"
    if runs == 2:
        return f"only 2 runs of {_version(case)} show it, and they leave {room}: one more run would narrow it"
    return f"{runs} runs of {_version(case)}, unlike each other, leave {room}: more runs would narrow it"


def _version(case: Case) -> str:
    return f"version {case.scope.name}" if case.scope.name else "it"

"""What a recommender gets and returns, and how a predicted range takes in the runs' own spread."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hubscope.analytics.findings import fingerprint
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck, NotJudged, Predicted, Recommendation
from hubscope.analytics.scope import Scope
from hubscope.analytics.statistics import t_quantile


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
    return Advice(not_judged=(NotJudged(f"what {what} would save ({finding.operation})", because),))


def together(advices: Sequence[Advice]) -> Advice:
    """All of them, but for predictions whose range reaches down to no saving at all: those are said not to be made."""
    made = [r for advice in advices for r in advice.recommendations]
    return Advice(
        tuple(r for r in made if r.predicted.low > 0),
        (
            *(n for advice in advices for n in advice.not_judged),
            *(NotJudged(f"what it would save: {r.change}", _TOO_WIDE) for r in made if r.predicted.low <= 0),
        ),
    )


_TOO_WIDE: Final = (
    "what is known so far leaves room for no saving at all: more runs of this version, or a database to time it on "
    "(--database FILE) where it is about queries, would narrow it"
)


def _spread(values: Sequence[float]) -> float:
    """The factor by which the runs' typical value may be off either way, at 90 %: Student's on logarithms.

    Durations are multiplied by what slows a machine down, and none is negative. A twentieth at least: two groups of
    runs of one program are seldom nearer than that. With one run a tenth, for nothing better is known. Runs in which
    the value was 0 have no logarithm: the others speak for the spread.
    """
    logarithms = [math.log(value) for value in values if value > 0]
    if len(logarithms) < 2:
        return 1.1
    error = statistics.stdev(logarithms) / len(logarithms) ** 0.5
    return max(math.exp(min(t_quantile(0.95, len(logarithms) - 1) * error, 700.0)), 1.05)


def recommendation(
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
) -> Recommendation:
    """A recommendation whose range holds what is not known about `then` and how unlike each other the runs are.

    `saved_s`: seconds that the change would have saved in all of the observed time.

    low..high is a 90 % range: the method's own (`then_high`..`then_low`), made wider on both sides by the factor of
    the runs' own spread (see `_spread`). low is above 0 wherever even `then_high` is less than `now`.
    """
    spent = case.scope.spent(saved_s)
    values = list(observe(case.scope, metric, dimensions).values())
    factor = _spread(values)
    return Recommendation(
        fingerprint=fingerprint(kind, case.scope.service, finding.fingerprint),
        for_=(finding.fingerprint,),
        change=change,
        where=where,
        predicted=Predicted(
            metric=metric,
            unit=unit,
            now=now,
            then=then,
            saving=now - then,
            low=min(now - then_high, now - then) / factor,
            high=max(now - then_low, now - then) * factor,
            method=method,
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

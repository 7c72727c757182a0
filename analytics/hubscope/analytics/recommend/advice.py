"""What a recommender gets and returns, and how a predicted range takes in the runs' own spread."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    return Advice(
        tuple(r for advice in advices for r in advice.recommendations),
        tuple(n for advice in advices for n in advice.not_judged),
    )


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

    low..high is a 90 % range: the method's own (`then_high`..`then_low`), widened on both sides by the 90 % interval
    of `now` over the runs (Student's), and by a twentieth of `now` at least: two groups of runs of one program are
    seldom nearer than that. With one run it is a tenth, for nothing better is known.
    """
    spent = case.scope.spent(saved_s)
    values = list(observe(case.scope, metric, dimensions).values())
    if len(values) >= 2:
        spread = t_quantile(0.95, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
        spread = max(spread, 0.05 * now)
    else:
        spread = 0.1 * now
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
            low=min(now - then_high, now - then) - spread,
            high=max(now - then_low, now - then) + spread,
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

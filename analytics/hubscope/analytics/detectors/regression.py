"""Root operations that got worse between two groups of runs, and where in them the time grew.

The verdict is the comparison's, so that one report says one thing. What grew most in self time per occurrence is
named as the place to look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from hubscope.analytics.findings import Outcome, duration, fingerprint, one_span, severity_by_ratio, worst
from hubscope.analytics.model import Bottleneck, Comparison, Impact
from hubscope.analytics.scope import Scope

NAME: Final = "regression"


def detect(before: Scope, after: Scope, comparisons: Sequence[Comparison]) -> Outcome:
    """`comparisons` are those of these two groups."""
    findings = []
    for c in comparisons:
        if c.metric != "root.duration" or c.verdict != "worse" or c.before is None or c.after is None:
            continue
        operation = c.dimensions["operation"]
        rows = [row for row in after.rows("root_operations") if row["operation"] == operation]
        example = worst(rows, "p95_s")
        name, grew_s = _grew_most(before, after, operation)
        more_s = c.after - c.before
        where = f"; most of it in {name}, {duration(grew_s)} more" if grew_s > 0 else ""
        findings.append(
            Bottleneck(
                fingerprint=fingerprint(NAME, after.service, operation),
                detector=NAME,
                severity=severity_by_ratio(c.after / c.before) if c.after < 10 * c.before else "critical",
                service=after.service,
                operation=operation,
                sentence=(
                    f"{operation} takes {duration(c.after)} in {after.name}, {duration(c.before)} in {before.name} "
                    f"({c.change or 0.0:+.0%}){where}."
                ),
                impact=Impact(
                    after.per_day(more_s * sum(row["n"] for row in rows)),
                    min(more_s / c.after, 1.0),
                    "runtime.response_time",
                ),
                evidence=one_span(example["worst_trace"], example["worst_span"]),
                version=after.name or None,
                facts={"before_s": c.before, "after_s": c.after, "grew_most": name, "grew_s": grew_s},
            )
        )
    return Outcome(tuple(findings))


def _grew_most(before: Scope, after: Scope, operation: str) -> tuple[str, float]:
    """The span name whose self time per occurrence of the operation grew most, and by how much."""
    growth: dict[str, float] = defaultdict(float)
    for scope, sign in ((before, -1.0), (after, 1.0)):
        rows = scope.rows("operation_self_times", operation=operation)
        occurrences = sum({row["run"]: row["occurrences"] for row in rows}.values())
        for row in rows:
            growth[row["name"]] += sign * row["self_s"] / max(occurrences, 1)
    return max(growth.items(), key=lambda item: (item[1], item[0]), default=("", 0.0))

"""Slow start-up phases: a quarter or more of a start that misses its target, unless imports explain the phase."""

from __future__ import annotations

from typing import Final

from hubscope.analytics.findings import (
    EXPLAINED,
    PHASE_SHARE,
    Outcome,
    duration,
    fingerprint,
    grouped,
    impact,
    kpi_limit,
    one_span,
    severity_by_share,
    total,
    typical,
    worst,
)
from hubscope.analytics.model import Bottleneck, Checked
from hubscope.analytics.scope import Row, Scope

NAME: Final = "slow_phase"
# The interpreter's own start and the measuring's: no part of the program, and nothing it could change.
NOT_THE_PROGRAMS: Final = frozenset({"interpreter", "instrumentation"})
# The plan's 3.1; the rules may say otherwise.
TARGETS_S: Final = {"cold": ("startup.cold", 3.0), "warm": ("startup.warm", 1.0)}


def detect(scope: Scope) -> Outcome:
    findings, fine = [], []
    for (kind,), starts in grouped(scope.rows("startup"), "type").items():
        starts = [row for row in starts if row["ended_by"] != "exit"]
        if not starts:
            continue
        name, plan_s = TARGETS_S.get(kind, TARGETS_S["cold"])
        target_s, took_s = kpi_limit(scope, name, plan_s), typical(starts, "duration_s")
        if took_s < target_s:
            fine.append(Checked(f"{kind or 'every'} start", f"{duration(took_s)}, target {duration(target_s)}"))
            continue
        runs = {row["run"] for row in starts}
        phases = [
            row for row in scope.rows("startup_phases") if row["run"] in runs and row["phase"] not in NOT_THE_PROGRAMS
        ]
        for (phase,), group in grouped(phases, "phase").items():
            phase_s = typical(group, "sum_s")
            if phase_s >= PHASE_SHARE * took_s and _imports_s(scope, group) < EXPLAINED * total(group, "sum_s"):
                findings.append(_finding(scope, kind, phase, group, phase_s, took_s, target_s, name))
    return Outcome(tuple(findings), tuple(fine))


def _imports_s(scope: Scope, phase: list[Row]) -> float:
    """Time of the imports that stand directly in these phases."""
    inside = {(row["worst_trace"], row["worst_span"]) for row in phase}
    rows = scope.rows("startup_imports")
    return sum(float(row["duration_s"]) for row in rows if (row["trace_id"], row["parent_span_id"]) in inside)


def _finding(
    scope: Scope, kind: str, phase: str, group: list[Row], phase_s: float, took_s: float, target_s: float, kpi: str
) -> Bottleneck:
    example = worst(group, "sum_s")
    share = min(phase_s / took_s, 1.0)
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, phase),
        detector=NAME,
        severity=severity_by_share(share),
        service=scope.service,
        operation=f"start-up phase {phase}",
        sentence=(
            f"The start-up phase {phase} takes {duration(phase_s)} of a {kind} start of {duration(took_s)} "
            f"(target {duration(target_s)}): do less in it, or move it behind interactive."
        ),
        impact=impact(scope, total(group, "sum_s"), share, kpi),
        evidence=one_span(example["worst_trace"], example["worst_span"]),
        version=scope.name or None,
        facts={"phase": phase, "phase_s": phase_s, "startup_s": took_s, "target_s": target_s, "type": kind},
    )

"""Slow start-up phases: a quarter or more of a start that misses its target, unless imports explain the phase.

The same goes for what stands in a start outside every phase (a vector index that is filled, say): a program that marks
no phases, and one that only starts and ends, is told what it waits for. Queries there are slow_query's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hubscope.analytics import kpis
from hubscope.analytics.findings import (
    EXPLAINED,
    PHASE_SHARE,
    Outcome,
    counted,
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
from hubscope.semconv import OWN_PHASE

NAME: Final = "slow_phase"
# The interpreter's own start and the measuring's: no part of the program, and nothing it could change.
NOT_THE_PROGRAMS: Final = frozenset({"interpreter", OWN_PHASE})
# A plugin's hook has an owner who can act on it: from 50 ms, the plan's overhead of plugins, and a twentieth of the
# start on. A hook that slept 0.5 s was a fifth of a start of 2.5 s, and no finding.
PLUGIN_S: Final = 0.05
PLUGIN_SHARE: Final = 0.05
# The plan's 3.1; the rules may say otherwise.
TARGETS_S: Final = {"cold": ("startup.cold", 3.0), "warm": ("startup.warm", 1.0)}


def detect(scope: Scope) -> Outcome:
    findings, fine = list(_parts(scope)), []
    for (kind,), starts in grouped(scope.rows("startup"), "type").items():
        starts = [row for row in starts if row["ended_by"] != "exit"]
        if not starts:
            continue
        name, plan_s = TARGETS_S.get(kind, TARGETS_S["cold"])
        target_s, took_s = kpi_limit(scope, name, plan_s), typical(starts, "duration_s")
        if took_s < target_s:
            # The KPI's verdict takes in how far the starts lie apart; a median alone must not contradict it.
            if _kpi_status(scope, name) != "unknown":
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


def _kpi_status(scope: Scope, name: str) -> str:
    """`pass`, `fail` or `unknown`; '' where no rule judges it or nothing feeds it."""
    judged = (kpis.evaluate(scope, rule) for rule in scope.rules.kpis if rule.name == name and rule.target is not None)
    return next((kpi.status for kpi in judged if kpi is not None), "")


def found_phases(scope: Scope) -> frozenset[str]:
    """The phases that are findings: what stands inside one of them is said with it."""
    return frozenset(str(finding.facts["phase"]) for finding in detect(scope).findings if "phase" in finding.facts)


def covered(row: Row, phases: frozenset[str]) -> bool:
    """Whether a row of `startup_parts` lies inside one of these phases."""
    return not phases.isdisjoint(row["phases"].split("\n"))


def _parts(scope: Scope) -> Iterator[Bottleneck]:
    """What takes a quarter of a start that misses its target (a plugin's hook: a twentieth), outside every phase."""
    parts = [row for row in scope.rows("startup_parts") if row["direct"] and not row["shape"] and not row["phases"]]
    for (kind, ended_by), starts in grouped(scope.rows("startup"), "type", "ended_by").items():
        kpi, plan_s = TARGETS_S.get(kind, TARGETS_S["cold"])
        target_s, took_s = kpi_limit(scope, kpi, plan_s), typical(starts, "duration_s")
        if took_s < target_s:
            continue
        runs = {row["run"] for row in starts}
        for (name,), group in grouped([row for row in parts if row["run"] in runs], "name").items():
            part_s, example = typical(group, "sum_s"), worst(group, "sum_s")
            if part_s < PHASE_SHARE * took_s and not _is_slow_plugin(name, part_s, took_s):
                continue
            share, is_job = min(part_s / took_s, 1.0), ended_by == "exit"
            times = f" ({counted(example['n'], 'call')})" if example["n"] > 1 else ""
            of = f"a run of {duration(took_s)}" if is_job else f"a {kind} start of {duration(took_s)}"
            advice = "" if is_job else f" (target {duration(target_s)}): do less of it, or move it behind interactive"
            yield Bottleneck(
                fingerprint=fingerprint(NAME, scope.service, "", name),
                detector=NAME,
                severity=severity_by_share(share),
                service=scope.service,
                operation="hub.startup",
                sentence=f"{name!r}, outside every start-up phase, takes {duration(part_s)}{times} of {of}{advice}.",
                impact=impact(scope, total(group, "sum_s"), share, None if is_job else kpi),
                evidence=one_span(example["worst_trace"], example["worst_span"]),
                version=scope.name or None,
                facts={
                    "part": name,
                    "part_s": part_s,
                    "startup_s": took_s,
                    "target_s": target_s,
                    "type": kind,
                    "ended_by": ended_by,
                },
            )


def _is_slow_plugin(name: str, part_s: float, took_s: float) -> bool:
    return name.startswith("plugin ") and part_s >= max(PLUGIN_S, PLUGIN_SHARE * took_s)


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

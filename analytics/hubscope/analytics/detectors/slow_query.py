"""Slow queries: over the plan's target for a query, or half of an operation that misses the target for a response and
slow for the rows it hands over.

A shape that is slow only because it is repeated is the N+1 detector's. A start's statement is one like any other,
unless a finding of slow_phase tells of the phase it stands in.
"""

from __future__ import annotations

from typing import Final

from hubscope.analytics.detectors import n_plus_one, slow_phase
from hubscope.analytics.findings import (
    EXPLAINED,
    SLOW_QUERY_FLOOR_S,
    SLOW_QUERY_SHARE,
    Outcome,
    counted,
    duration,
    fingerprint,
    grouped,
    impact,
    kpi_limit,
    one_span,
    root_time_s,
    severity_by_ratio,
    total,
    typical,
    worst,
)
from hubscope.analytics.model import Bottleneck, Checked
from hubscope.analytics.scope import Row, Scope

NAME: Final = "slow_query"


def detect(scope: Scope) -> Outcome:
    rows = scope.rows("query_shapes")
    if not rows:
        return Outcome()
    target_s = kpi_limit(scope, "memory.query_time", 0.1)
    response_s = kpi_limit(scope, "runtime.response_time", 0.1)
    repeated = {(row["operation"], row["shape"]) for row in n_plus_one.rows(scope)}
    roots = root_time_s(scope)
    slow_roots = {
        operation
        for (operation,), group in grouped(scope.rows("root_operations"), "operation").items()
        if typical(group, "p95_s") >= response_s
    }
    told = _told_by_phases(scope)
    findings = []
    slowest = 0.0
    for (operation, shape), group in grouped(rows, "operation", "shape").items():
        p95_s, median_s = typical(group, "p95_s"), typical(group, "median_s")
        share = min(total(group, "sum_s") / roots[operation], 1.0) if roots.get(operation) else 0.0
        if p95_s < SLOW_QUERY_FLOOR_S or (operation == "hub.startup" and shape in told):
            continue
        # A query that hands over many rows may take its time.
        over = p95_s >= target_s and (median_s >= target_s or _wasteful(scope, shape, median_s))
        over = over and not ((operation, shape) in repeated and median_s < target_s)
        dominant = (
            operation in slow_roots
            and share >= SLOW_QUERY_SHARE
            and median_s >= SLOW_QUERY_FLOOR_S
            and (operation, shape) not in repeated
            and _wasteful(scope, shape, median_s)
        )
        if over or dominant:
            findings.append(_finding(scope, operation, shape, group, share, target_s, over))
        else:
            slowest = max(slowest, p95_s)
    fine = Checked("queries", f"the slowest other shape has a p95 of {duration(slowest)}, target {duration(target_s)}")
    return Outcome(tuple(findings), (fine,) if slowest else ())


def _told_by_phases(scope: Scope) -> set[str]:
    """Shapes of which at least half the time in a start lies inside phases that are findings themselves."""
    phases = slow_phase.found_phases(scope)
    if not phases:
        return set()
    return {
        shape
        for (shape,), group in grouped(scope.rows("startup_parts"), "shape").items()
        if total([row for row in group if slow_phase.covered(row, phases)], "sum_s")
        >= EXPLAINED * total(group, "sum_s")
    }


def _finding(
    scope: Scope, operation: str, shape: str, group: list[Row], share: float, target_s: float, over: bool
) -> Bottleneck:
    p95_s, median_s = typical(group, "p95_s"), typical(group, "median_s")
    count, spent_s = total(group, "n"), total(group, "sum_s")
    example = worst(group, "max_s")
    returned = _rows_returned(scope, shape)
    why = f"p95 {duration(p95_s)}, target {duration(target_s)}" if over else f"{share:.0%} of its time"
    few = ""
    if returned is not None and _wasteful(scope, shape, median_s):
        rows = counted(round(returned), "row")
        few = f" for {rows}, so it most likely reads many more than it returns: look for a missing index"
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, operation, shape),
        detector=NAME,
        severity=severity_by_ratio(p95_s / target_s),
        service=scope.service,
        operation=operation,
        sentence=f"The query {shape!r} in {operation or 'no root operation'} takes {duration(median_s)}{few} ({why}).",
        impact=impact(
            scope,
            spent_s - (count * target_s if over and median_s > target_s else 0.0),
            share if operation else None,
            n_plus_one.awaited_kpi(scope, operation) if operation else None,
        ),
        evidence=one_span(example["worst_trace"], example["worst_span"]),
        version=scope.name or None,
        facts={
            "query": shape,
            "collection": example["collection"],
            "system": example["system"],
            "namespace": example["namespace"],
            "median_s": median_s,
            "p95_s": p95_s,
            "count": count,
            "seconds": spent_s,
            "rows_returned": returned,
        },
    )


def _wasteful(scope: Scope, shape: str, median_s: float) -> bool:
    """Whether it takes 0.5 ms or more a row handed over, or nobody knows how many rows that were.

    A table row read in passing costs about a microsecond, one fetched through joins some ten: 500 point at rows read
    and thrown away.
    """
    returned = _rows_returned(scope, shape)
    return returned is None or median_s / max(returned, 1.0) >= 0.0005


def _rows_returned(scope: Scope, shape: str) -> float | None:
    rows = [r for r in scope.rows("query_rows", shape=shape, other_shape=shape) if r["returned_rows"] is not None]
    return typical(rows, "returned_rows") if rows else None

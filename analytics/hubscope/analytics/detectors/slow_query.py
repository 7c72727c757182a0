"""Slow queries: over the plan's target for a query, or half of an operation that misses the target for a response and
slow for the rows it hands over.

A shape that is slow only because it is repeated is the N+1 detector's. A start's statement is one like any other,
unless a finding of slow_phase tells of the phase it stands in. A shape that is slow in several operations is one
finding that names them: what makes it slow lies in the database, and one change mends all.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
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
# Statements that define tables and indexes or rebuild them: they read what there is, and no index spares them that.
DEFINITIONS: Final = frozenset({"CREATE", "DROP", "ALTER", "REINDEX", "VACUUM", "ANALYZE", "TRUNCATE"})


def once(operation: str) -> str:
    """What to do about a statement that defines something."""
    return "build it once, not at each start" if operation.startswith("hub.startup") else "do it once, not each time"


@dataclasses.dataclass(frozen=True)
class Place:
    """One shape in one operation in which it is too slow."""

    operation: str
    rows: list[Row]
    share: float  # of the operation's time
    over: bool  # the target for a query; else the half of a slow operation
    median_s: float
    p95_s: float
    count: float
    spent_s: float
    lost_s: float


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
    places: dict[tuple[str, str], list[Place]] = defaultdict(list)
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
            spent_s, count = total(group, "sum_s"), total(group, "n")
            lost_s = spent_s - (count * target_s if over and median_s > target_s else 0.0)
            places[shape, group[0]["system"]].append(
                Place(operation, group, share, over, median_s, p95_s, count, spent_s, lost_s)
            )
        else:
            slowest = max(slowest, p95_s)
    fine = Checked("queries", f"the slowest other shape has a p95 of {duration(slowest)}, target {duration(target_s)}")
    findings = tuple(_finding(scope, shape, found, target_s, roots) for (shape, _), found in places.items())
    return Outcome(findings, (fine,) if slowest else ())


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


def _finding(scope: Scope, shape: str, places: list[Place], target_s: float, roots: dict[str, float]) -> Bottleneck:
    """One finding of all operations in which the shape is slow; it is described where it costs most."""
    places = sorted(places, key=lambda place: (-place.lost_s, place.operation))
    main = places[0]
    example = worst(main.rows, "max_s")
    returned = _rows_returned(scope, shape)
    why = f"p95 {duration(main.p95_s)}, target {duration(target_s)}" if main.over else f"{main.share:.0%} of its time"
    few = ""
    is_definition = shape.split(" ", 1)[0].upper() in DEFINITIONS
    if is_definition:
        runs = counted(len({row["run"] for row in main.rows}), "run")
        few = f", {counted(round(main.count), 'time')} in {runs}: {once(main.operation)}"
    elif returned is not None and _wasteful(scope, shape, main.median_s):
        rows = counted(round(returned), "row")
        few = f" for {rows}, so it most likely reads many more than it returns: look for a missing index"
    # The first by name, not the dearest: which one that is changes from run to run.
    own, *also = (fingerprint(NAME, scope.service, p.operation, shape) for p in sorted(places, key=_by_name))
    kpi = n_plus_one.awaited_kpi(scope, main.operation) if main.operation else None
    return Bottleneck(
        fingerprint=own,
        detector=NAME,
        severity=severity_by_ratio(max(place.p95_s for place in places) / target_s),
        service=scope.service,
        operation=main.operation,
        sentence=(
            f"The query {shape!r} in {main.operation or 'no root operation'}{_elsewhere(places)} takes "
            f"{duration(main.median_s)}{few} ({why})."
        ),
        impact=impact(
            scope,
            sum(place.lost_s for place in places),
            _share_of(scope, places, kpi, roots) if main.operation else None,
            kpi,
        ),
        evidence=tuple(
            evidence
            for place in places
            for row in (worst(place.rows, "max_s"),)
            for evidence in one_span(row["worst_trace"], row["worst_span"])
        ),
        version=scope.name or None,
        facts={
            "query": shape,
            "collection": example["collection"],
            "system": example["system"],
            "namespace": example["namespace"],
            "median_s": main.median_s,
            "p95_s": main.p95_s,
            "count": main.count,
            "seconds": main.spent_s,
            "rows_returned": returned,
            "is_definition": is_definition,
            "operations": [
                {
                    "operation": place.operation,
                    "median_s": place.median_s,
                    "p95_s": place.p95_s,
                    "count": place.count,
                    "seconds": place.spent_s,
                }
                for place in places
            ],
        },
        also=tuple(also),
    )


def _by_name(place: Place) -> str:
    return place.operation


def _elsewhere(places: list[Place]) -> str:
    """` and as slowly in GET /b, GET /c and 2 more operations`, of the places after the first."""
    names = [place.operation or "no root operation" for place in places[1:]]
    if len(names) > 3:
        names = [*names[:2], counted(len(names) - 2, "more operation")]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f" (too slow in {listed} as well)" if names else ""


def _share_of(scope: Scope, places: list[Place], kpi: str | None, roots: dict[str, float]) -> float:
    """The query's share of the time of those operations that the KPI is about; a start is not about responses."""
    meant = [p for p in places if p.operation and n_plus_one.awaited_kpi(scope, p.operation) == kpi]
    whole_s = sum(roots.get(place.operation, 0.0) for place in meant)
    return min(sum(place.spent_s for place in meant) / whole_s, 1.0) if whole_s else 0.0


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

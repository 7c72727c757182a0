"""N+1 queries: at least five queries of one shape in a loop under one parent, together 50 ms or more typically.

The typical loop decides, the median of all times it ran: one of 75 that passes 50 ms because the machine was busy is no
cause. What a finding says and what a change would save are of every time the loop ran, the cheap and the dear.
The loop's body may hold other queries (a post's comments, then its author). With the query that listed the items before
them, or without one: a loop over a vector search's results is the same. Queries that run side by side are no loop, and
writes are one only where each item has a commit of its own (see sql/n_plus_one.sql).
"""

from __future__ import annotations

import statistics
from typing import Final

from hubscope.analytics.findings import (
    N_PLUS_ONE_NS,
    Outcome,
    counted,
    duration,
    fingerprint,
    grouped,
    impact,
    root_time_s,
    severity_by_share,
    subject,
    total,
    worst,
)
from hubscope.analytics.metrics import query_loops
from hubscope.analytics.model import Bottleneck, Checked, Evidence
from hubscope.analytics.scope import Row, Scope

NAME: Final = "n_plus_one"
# The measuring's part of what was recorded of a loop from which on a finding says so.
MEASURING_SHARE: Final = 0.1


def rows(scope: Scope) -> list[Row]:
    """Every loop, of the operations, parents and shapes whose typical loop takes 50 ms."""
    return [
        row
        for group in grouped(query_loops(scope), "operation", "parent", "shape").values()
        if _typical_loop_s(group) >= N_PLUS_ONE_NS / 1e9
        for row in group
    ]


def _typical_loop_s(group: list[Row]) -> float:
    """The median loop; a row's loops (of one run and one source) count with its median, each as often as it ran."""
    ordered = sorted(group, key=lambda row: float(row["median_s"]))
    half, seen = total(group, "times") / 2, 0.0
    for row in ordered:
        seen += row["times"]
        if seen >= half:
            return float(row["median_s"])
    return 0.0


def detect(scope: Scope) -> Outcome:
    found = rows(scope)
    if not found:
        seen = scope.rows("query_shapes")
        why = (
            f"no loop over one of {counted(len(seen), 'shape')} took 50 ms; queries side by side are no loop, "
            "nor are writes in one transaction"
        )
        fine = (Checked("repeated queries", why),)
        return Outcome(fine=fine if seen else ())
    roots = root_time_s(scope)
    return Outcome(
        tuple(
            _finding(scope, key, group, roots) for key, group in grouped(found, "operation", "parent", "shape").items()
        )
    )


def _finding(scope: Scope, key: tuple[str, ...], group: list[Row], roots: dict[str, float]) -> Bottleneck:
    operation, parent, shape = key
    lost_s, times = total(group, "sum_s"), total(group, "times")
    each = sum(row["queries_each"] * row["times"] for row in group) / times
    measuring_s = total(group, "measuring_s")
    # Of the program's own time: what recording the loop's spans took is no part of the operation.
    own_s = max(roots.get(operation, 0.0) - measuring_s, lost_s)
    share = lost_s / own_s if roots.get(operation) else None
    example = worst(group, "sum_s")
    source = example["source_shape"]
    after = f" after {source!r}, once an item" if source else ""
    commits = sum(row["commits_each"] * row["times"] for row in group) / times
    part = f", {share:.0%} of its time" if share is not None else ""
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, operation, parent, shape),
        detector=NAME,
        severity=severity_by_share(share or 0.0),
        service=scope.service,
        operation=operation,
        sentence=(
            f"{subject(operation)} runs {shape!r} {each:.0f} times in a row{after}, "
            f"{_each_time(group)} each time it does{_with_commits(example, commits)}{part}: "
            f"{_way_out(example)}.{_measuring(group)}"
        ),
        impact=impact(scope, lost_s, share, awaited_kpi(scope, operation) if share is not None else None),
        evidence=(_evidence(scope, example),),
        version=scope.name or None,
        facts={
            "query": shape,
            "parent": parent,
            "collection": example["collection"],
            "source_query": source,
            "source_collection": example["source_collection"],
            "queries_each": each,
            "commits_each": commits,
            "kind": example["kind"],
            "measuring_s": measuring_s,
            "times": times,
            "seconds": lost_s,
            "between_seconds": total(group, "between_s"),
        },
    )


def _each_time(group: list[Row]) -> str:
    """What a loop takes: the median over the runs, and the dearest where that is another story."""
    median_s, most_s = _typical_loop_s(group), max(float(row["max_s"]) for row in group)
    return f"{duration(median_s)}{f' (up to {duration(most_s)})' if most_s >= 2 * median_s else ''}"


def _with_commits(row: Row, commits: float) -> str:
    if row["kind"] != "write":
        return ""
    return f" with its {counted(round(commits), 'COMMIT')}" if commits else ", each in a transaction of its own"


def _way_out(row: Row) -> str:
    if row["kind"] != "write":
        return "fetch all items in one query"
    # In the same process a call costs a microsecond; over a connection each item is one more way there and back.
    many = "" if row["system"] == "sqlite" else ", by executemany or one statement with many rows"
    return f"write all items in one transaction{many}"


def _measuring(group: list[Row]) -> str:
    """Said where recording the loop's spans is much of what was recorded of it."""
    each_s = statistics.median(row["measuring_s"] / row["times"] for row in group)
    recorded_s = statistics.median((row["sum_s"] + row["measuring_s"]) / row["times"] for row in group)
    if each_s < MEASURING_SHARE * recorded_s:
        return ""
    return f" {duration(recorded_s)} were recorded, of which {duration(each_s)} is measuring."


def awaited_kpi(scope: Scope, operation: str) -> str | None:
    """What a user waits for meanwhile; a job that only ever starts and ends has no such KPI."""
    if operation != "hub.startup":
        return "runtime.response_time"
    return "startup.interactive" if any(row["ended_by"] != "exit" for row in scope.rows("startup")) else None


def _evidence(scope: Scope, row: Row) -> Evidence:
    spans = scope.data.engine.rows("trace_spans", trace_id=row["worst_trace"])
    owner = row["worst_parent"]
    wrappers = {span["span_id"] for span in spans if span["parent_span_id"] == owner}
    inside = [
        span
        for span in spans
        if (span["parent_span_id"] == owner or span["parent_span_id"] in wrappers)
        and span["attributes"].get("db.system.name")
    ]

    def shape(span: Row) -> str:
        return str(span["attributes"].get("db.query.summary") or span["name"])

    offenders = [span for span in inside if shape(span) == row["shape"]]
    before = [
        s for s in inside if offenders and s["start_ns"] < offenders[0]["start_ns"] and shape(s) == row["source_shape"]
    ]
    return Evidence(
        row["worst_trace"],
        (owner,),
        tuple(span["span_id"] for span in before[-1:]),
        tuple(span["span_id"] for span in offenders),
    )

"""The recorded imports of starts as the trees they were, and by package: rows of startup_imports.sql."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hubscope.analytics.scope import Row


def top_level(module: str) -> str:
    return module.partition(".")[0]


def own_times_s(rows: Sequence[Row]) -> list[float]:
    """The time of each import less that of the recorded imports directly inside it, in seconds, never below 0."""
    inside: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        inside[row["trace_id"], row["parent_span_id"]] += row["duration_s"]
    return [max(row["duration_s"] - inside.get((row["trace_id"], row["span_id"]), 0.0), 0.0) for row in rows]


def outermost(rows: Sequence[Row]) -> dict[str, list[tuple[Row, list[Row]]]]:
    """Each package's imports that stand in no other import of it, with the imports around each, innermost first."""
    by_id = {(row["trace_id"], row["span_id"]): row for row in rows}
    found: dict[str, list[tuple[Row, list[Row]]]] = defaultdict(list)
    for row in rows:
        around = []
        current = by_id.get((row["trace_id"], row["parent_span_id"]))
        while current is not None:
            around.append(current)
            current = by_id.get((current["trace_id"], current["parent_span_id"]))
        package = top_level(row["module"])
        if all(top_level(other["module"]) != package for other in around):
            found[package].append((row, around))
    return found


def is_unused(roots: Sequence[tuple[Row, list[Row]]]) -> bool:
    """None of a package's outermost imports was used. Extensions, of which nothing is known, count as part of a
    package that is otherwise unused, where they are the lesser part."""
    unused_s = marked_s(roots, "false")
    return unused_s > 0 and unused_s >= marked_s(roots, "") and not marked_s(roots, "true")


def marked_s(roots: Sequence[tuple[Row, list[Row]]], used: str) -> float:
    """The seconds of those imports that bear this mark: `true`, `false`, or '' where it isn't known."""
    return sum(float(row["duration_s"]) for row, _ in roots if row["used"] == used)

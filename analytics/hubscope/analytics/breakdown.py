"""Where the time goes in one version of a service: its start, root operations, queries, vector searches and plugins.

Nothing is judged here. What took most is listed, the rest is summed, so that the figures of a list add up.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from hubscope.analytics import kpis, plugin_durations
from hubscope.analytics.import_tree import is_unused, marked_s, outermost, own_times_s, top_level
from hubscope.analytics.model import Breakdown, ImportTime, PhaseTime, StartupTime, TimeList, TimeRow
from hubscope.analytics.scope import Row, Scope

SHOWN: Final = 8  # a list; what comes after the eighth seldom holds a tenth of the time
PART_SHARE: Final = 0.05  # of a start: what no phase holds and takes less has no line in the start-up's table


def of(scope: Scope) -> Breakdown:
    """The breakdown of a scope whose name is a version ('' where the resource names none)."""
    data = scope.data
    timed = data.rows("where_time_goes", service=scope.service, version=scope.name)
    return Breakdown(
        service=scope.service,
        version=scope.name or None,
        runs=len(scope.applications),
        observed_for_seconds=sum(run.seconds for run in scope.applications),
        startup=_startup(scope),
        operations=listed(data.rows("root_operations_of_version", service=scope.service, version=scope.name)),
        queries=listed([row for row in timed if row["kind"] == "query"]),
        vector_searches=listed([row for row in timed if row["kind"] == "vector"]),
        plugins=listed(_plugins(scope, [row for row in timed if row["kind"] == "plugin"])),
    )


def _plugins(scope: Scope, by_spans: Sequence[Row]) -> list[Row]:
    """Plugin calls by hook from the histogram, which counts every call; by spans where no histogram came."""
    found = {(row["name"], row["detail"]): row for row in by_spans}
    for (plugin, hook), points in plugin_durations.points(scope).items():
        lows = [p["low"] for p in points if p["low"] is not None]
        highs = [p["high"] for p in points if p["high"] is not None]
        found[plugin, hook] = {
            "name": plugin,
            "detail": hook,
            "n": round(sum(p["n"] for p in points)),
            "sum_s": sum(p["total"] or 0.0 for p in points),
            "median_s": kpis.quantile_of(points, 0.5, lows, highs),
            "p95_s": kpis.quantile_of(points, 0.95, lows, highs),
        }
    return list(found.values())


def listed(rows: Sequence[Row], shown: int = SHOWN) -> TimeList:
    """Rows (name, detail, n, sum_s, median_s, p95_s), the dearest `shown` of them named."""
    total = sum(row["sum_s"] for row in rows)
    ordered = sorted(rows, key=lambda row: (-row["sum_s"], row["name"], row["detail"]))
    # One more line takes the place that "1 more" would.
    kept = ordered[: shown if len(ordered) > shown + 1 else shown + 1]
    rest = ordered[len(kept) :]
    return TimeList(
        tuple(
            TimeRow(
                name=row["name"],
                detail=row["detail"],
                calls=row["n"],
                total=row["sum_s"],
                median=row["median_s"],
                p95=row["p95_s"],
                share=min(row["sum_s"] / total, 1.0) if total else 0.0,
            )
            for row in kept
        ),
        calls=sum(row["n"] for row in rows),
        total=total,
        others=len(rest),
        others_calls=sum(row["n"] for row in rest),
        others_total=sum(row["sum_s"] for row in rest),
    )


def _startup(scope: Scope) -> StartupTime | None:
    """Starts that became interactive; where none did, those that ended with the process."""
    every = scope.rows("startup")
    starts = [row for row in every if row["ended_by"] != "exit"] or every
    if not starts:
        return None
    took_s = statistics.median(row["duration_s"] for row in starts)
    runs = {row["run"] for row in starts}
    by_phase: dict[str, list[float]] = defaultdict(list)
    for row in scope.rows("startup_phases"):
        if row["run"] in runs:
            by_phase[row["phase"]].append(row["sum_s"])
    marked = frozenset(by_phase)
    for row in scope.rows("startup_parts"):  # what stands beside the phases, where it is worth a line
        if row["run"] in runs and row["direct"] and not row["shape"] and not row["phases"]:
            by_phase[row["name"]].append(row["sum_s"])
    phases = [
        (name, seconds)
        for name, values in by_phase.items()
        if (seconds := statistics.median(values)) >= PART_SHARE * took_s or name in marked
    ]
    imports = _imports(scope, {row["trace_id"] for row in starts})
    kept = imports[: SHOWN if len(imports) > SHOWN + 1 else SHOWN + 1]
    rest = imports[len(kept) :]
    return StartupTime(
        starts=len(starts),
        type=", ".join(sorted({row["type"] for row in starts} - {""})),
        ended_by=", ".join(sorted({row["ended_by"] for row in starts} - {""})),
        duration=took_s,
        phases=tuple(
            PhaseTime(name, seconds, min(seconds / took_s, 1.0) if took_s else 0.0)
            for name, seconds in sorted(phases, key=lambda phase: (-phase[1], phase[0]))
        ),
        imports=tuple(kept),
        imports_total=sum(i.self_time for i in imports),
        imports_others=len(rest),
        imports_others_self_time=sum(i.self_time for i in rest),
    )


def _imports(scope: Scope, traces: set[str]) -> list[ImportTime]:
    """Every recorded package of these starts, the dearest in all first.

    By the modules' own time a package of many small ones would stand nowhere (numpy: 32 recorded ones make 147 ms, the
    dearest 19). Figures are summed in each start, as those of slow_imports are, then the median of the starts is taken.
    """
    rows = [row for row in scope.rows("startup_imports") if row["trace_id"] in traces]
    own_s: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    modules: dict[str, set[str]] = defaultdict(set)
    for row, seconds in zip(rows, own_times_s(rows), strict=True):
        package = top_level(row["module"])
        own_s[package][row["trace_id"]] += seconds
        modules[package].add(row["module"])
    found = []
    for package, roots in outermost(rows).items():
        by_start: dict[str, list[tuple[Row, list[Row]]]] = defaultdict(list)
        for row, around in roots:
            by_start[row["trace_id"]].append((row, around))
        used = {_used(one_start) for one_start in by_start.values()}
        importers = {top_level(around[0]["module"]) if around else "" for _, around in roots}
        found.append(
            ImportTime(
                module=package,
                self_time=statistics.median(own_s[package].values()),
                cumulative=statistics.median(
                    sum(row["duration_s"] for row, _ in one_start) for one_start in by_start.values()
                ),
                used_before_interactive=used.pop() if len(used) == 1 else None,
                modules=len(modules[package]),
                imported_by=tuple(sorted(importers - {""})) if "" not in importers else (),
            )
        )
    return sorted(found, key=lambda i: (-i.cumulative, i.module))


def _used(roots: list[tuple[Row, list[Row]]]) -> bool | None:
    """Whether a package was used in one start, by what slow_imports goes by; None where that isn't known."""
    if marked_s(roots, "true"):
        return True
    return False if is_unused(roots) else None

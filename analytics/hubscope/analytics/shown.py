"""Whether a later version shows that a change was made: its cause is gone, or the saving is certain.

That a finding is no longer made proves neither: a p95 slips under its target when the machine grows quiet.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Final

from hubscope.analytics import comparisons
from hubscope.analytics.findings import CACHE_GAIN, N_PLUS_ONE_QUERIES, counted, size
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.scope import Scope
from hubscope.analytics.statistics import are_apart, welch

# The share of a prediction that must be saved with certainty before it is taken as followed.
SHOWN_SHARE: Final = 0.2
NOT_SEEN: Final = "not seen to have come true"

Dimensions = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Change:
    """One metric in an earlier and a later version. `saving` is the fall of its median (of a rate: its rise), with a
    90 % interval from two runs a side on; None where the later version has no value of it."""

    is_shown: bool
    saving: float | None
    low: float | None
    high: float | None
    reason: str  # why it counts as shown, or what was seen instead


def change(before: Scope, later: Scope, metric: str, dimensions: Dimensions, least: float, unit: str = "s") -> Change:
    """Whether `metric` shows a change from `before` to `later`. `least`: what must certainly be saved, in its unit.

    Times must moreover lie apart as a comparison's do (see `statistics.are_apart`): a machine that grew quieter saves
    a third of everything.
    """
    names = [scope.name or "no version" for scope in (before, later)]
    sign = -1 if metric in _HIGHER_IS_BETTER else 1
    old, new = (list(observe(scope, metric, dimensions).values()) for scope in (before, later))
    gone = _gone(before, later, metric, dimensions)
    if not old or not new:
        why = f"what {metric} was measured on is gone from {names[1]}" if gone and old else ""
        return Change(gone and bool(old), None, None, None, why or f"{metric} was not seen in {names[1]}")
    saving = sign * (statistics.median(old) - statistics.median(new))
    low = high = None
    if min(len(old), len(new)) >= 2:
        low, high = sorted(sign * end for end in welch(new, old).interval(0.9))
    runs = f"{counted(len(old), 'run')} of {names[0]} against {len(new)} of {names[1]}"
    if gone:
        return Change(True, saving, low, high, f"the cause is gone: {runs}")
    if saving > 0 and low is not None and low > 0 and low >= least and (unit != "s" or are_apart(old, new)):
        return Change(True, saving, low, high, f"the saving is certain: {runs}")
    interval = f" ({size(low, unit)} to {size(high, unit)})" if low is not None and high is not None else ""
    seen = f"{runs} show a saving of {size(saving, unit)}{interval}"
    few = ", and one run tells nothing of how far runs differ" if low is None else ", which may be chance"
    return Change(False, saving, low, high, seen + few)


def mended(finding: Bottleneck, before: Scope, later: Scope) -> bool:
    """Whether `later`, which does not show the finding, shows that its cause was changed. No metric, no proof.

    What a comparison of the two calls better is shown as well: one product says one thing.
    """
    told_by = metric_of(finding)
    if told_by is None:
        return False
    metric, dimensions = told_by
    if change(before, later, metric, dimensions, 0.0, "1" if metric in _HIGHER_IS_BETTER else "s").is_shown:
        return True
    return any(
        c.verdict == "better" and c.metric == metric and dict(c.dimensions) == dict(dimensions)
        for c in comparisons.compare_groups([(before, later)])
    )


def metric_of(finding: Bottleneck) -> tuple[str, Dimensions] | None:
    """The metric that tells of a finding's cause alone; None for findings that no metric tells of."""
    facts, operation = finding.facts, finding.operation
    match finding.detector:
        case "n_plus_one":
            return "query.loop_time_per_operation", loop_dimensions(finding)
        case "slow_query":
            return "query.duration", {"operation": operation, "query": facts["query"]}
        case "slow_imports":
            return "startup.package_import_time", {"packages": ",".join(facts["packages"])}
        case "slow_phase" if "phase" in facts:
            return "startup.phase_duration", {"phase": facts["phase"]}
        case "slow_phase":
            return "startup.part_duration", {"part": facts["part"]}
        case "slow_vector_search":
            return "vector.search_duration", facts["of"]
        case "plugin_over_quota" if any(b["resource"] == "execution" for b in facts["breaches"]):
            return "plugin.time_per_call", {"plugin": facts["plugin"], "hook": facts["hook"]}
        case "plugin_overhead" if facts["dearest"]:
            return "plugin.time_per_call", facts["dearest"]
        case "low_cache_hit_rate":
            return "cache.hit_rate", {"cache": facts["cache"]}
    return None


def loop_dimensions(finding: Bottleneck) -> dict[str, str]:
    """The dimensions of query.loop_time_per_operation that hold a loop of queries and what takes its place."""
    facts = finding.facts
    collections = sorted({c for c in (facts["collection"], facts["source_collection"]) if c}) or [""]
    return {
        "operation": finding.operation,
        "parent": facts["parent"],
        "collections": ",".join(collections),
        **({"but_not": facts["source_query"]} if facts["source_query"] else {}),
    }


_HIGHER_IS_BETTER: Final = frozenset({"cache.hit_rate"})


def _gone(before: Scope, later: Scope, metric: str, dimensions: Dimensions) -> bool:
    return metric in _CAUSES and _CAUSES[metric](before, later, dimensions)


def _loop_is_gone(before: Scope, later: Scope, of: Dimensions) -> bool:
    """The statement that ran most often there in `before` is not run there at all in `later`, where others are; or
    once an operation at most, where it was repeated."""
    old, new = _times_each(before, of), _times_each(later, of)
    if not old or not new:
        return False
    repeated = max(old, key=lambda shape: old[shape])
    return repeated not in new or (new[repeated] <= 1 and old[repeated] >= N_PLUS_ONE_QUERIES)


def _times_each(scope: Scope, of: Dimensions) -> dict[str, float]:
    """Statement -> how often it runs there in an occurrence of the operation, in the run that has most of it."""
    found: dict[str, float] = {}
    for row in scope.rows("operation_queries", operation=of["operation"]):
        if (
            row["parent"] == of["parent"]
            and row["collection"] in of["collections"].split(",")
            and row["shape"] != of.get("but_not", "")
        ):
            found[row["shape"]] = max(found.get(row["shape"], 0.0), row["n"] / row["occurrences"])
    return found


def _query_is_gone(_: Scope, later: Scope, of: Dimensions) -> bool:
    """The operation ran, without the statement. Whether an index was used, no span tells."""
    operations = {row["operation"] for row in later.rows("root_operations")}
    shapes = {(row["operation"], row["shape"]) for row in later.rows("query_shapes")}
    return of["operation"] in operations and (of["operation"], of["query"]) not in shapes


def _misses_fewer(before: Scope, later: Scope, of: Dimensions) -> bool:
    """Every run of `later` hits more often than every one of `before`, by what makes a cache worth enlarging. A rate is
    no time: no quieter machine raises it."""
    old, new = (observe(scope, "cache.hit_rate", of).values() for scope in (before, later))
    return bool(old and new) and min(new) >= max(old) + CACHE_GAIN


def _left_the_start(metric: str) -> Callable[[Scope, Scope, Dimensions], bool]:
    """It is in no start of `later`, though starts were seen."""

    def is_gone(_: Scope, later: Scope, of: Dimensions) -> bool:
        return bool(later.rows("startup")) and not any(observe(later, metric, of).values())

    return is_gone


_CAUSES: Final[Mapping[str, Callable[[Scope, Scope, Dimensions], bool]]] = {
    "query.time_per_operation": _loop_is_gone,  # of older ledgers
    "query.loop_time_per_operation": _loop_is_gone,
    "query.duration": _query_is_gone,
    "startup.package_import_time": _left_the_start("startup.package_import_time"),
    "startup.phase_duration": _left_the_start("startup.phase_duration"),
    "startup.part_duration": _left_the_start("startup.part_duration"),
    "cache.load_time_per_lookup": _misses_fewer,
}

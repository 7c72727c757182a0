"""The named metrics that predictions, comparisons and the ledger share: a name and dimensions give one value a run.

Several causes may change between two versions at once, so each metric is narrow enough to show one of them alone, and
is defined also where the thing it is about has vanished.

    root.duration              operation                    median duration of a root operation
    query.duration             operation, query             median duration of one query shape under it
    query.time_per_operation   operation, parent,           time in queries on these collections directly under that
                               collections, but_not         parent, for each occurrence of the operation; without the
                                                            shape `but_not`. After an N+1 became one query of another
                                                            shape this is that query's time
    query.loop_time_per_operation  the same                 the same, where a loop of queries counts with what lies
                               between them, and without what recording it takes, as n_plus_one.sql has it: the time
                               that one query in the loop's place spares
    startup.duration           type                         process creation to interactive
    startup.phase_duration     phase
    startup.part_duration      part                         spans of that name that stand directly in the start and in
                                                            no phase; 0 where the start was seen without any
    startup.import_total                                    the application's imports of the start (none of the
                                                            launcher's) that no other import contains; 0
                                                            where each was below the recording threshold
    startup.package_import_time  packages                   import time of these packages within the start; 0 where the
                                                            start was seen and none of them was imported (or each
                                                            below the recording threshold)
    vector.search_duration     system, index, index_type,   median call; where a run has no search of that type, that of
                               vectors                      the types it has, for an index may be made another
    plugin.time_per_call       plugin, hook                 mean
    cache.load_time_per_lookup cache                        time in loads over look-ups
    cache.hit_rate             cache
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from hubscope.analytics.findings import N_PLUS_ONE_NS, N_PLUS_ONE_QUERIES
from hubscope.analytics.import_tree import own_times_s, top_level
from hubscope.analytics.scope import Row, Scope
from hubscope.semconv import HUB_CACHE_NAME, HUB_CACHE_RESULT, METRIC_CACHE_REQUESTS

# An import shorter than this has no span, unless the application set another threshold.
IMPORT_RECORDED_S: Final = 0.005


@dataclasses.dataclass(frozen=True)
class Series:
    """One metric of one group of runs: a value for each run that has one. `total_s` is the time behind it, if any."""

    metric: str
    dimensions: Mapping[str, str]
    unit: str
    values: Mapping[str, float]  # run -> value
    higher_is_better: bool = False
    total_s: float = 0.0
    least: float = 0.0  # less was not recorded: a ratio takes a value below it for it

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.metric, tuple(sorted(self.dimensions.items()))


def _by(
    rows: list[Row], metric: str, keys: Mapping[str, str], value: str, *, unit: str = "s", total: str = "sum_s"
) -> list[Series]:
    """Series from rows: `keys` maps dimensions to columns, one row a run and series."""
    values: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    totals: dict[tuple[str, ...], float] = defaultdict(float)
    for row in rows:
        if row[value] is not None:
            key = tuple(str(row[column]) for column in keys.values())
            values[key][row["run"]] = float(row[value])
            totals[key] += float(row[total] or 0.0)
    return [
        Series(metric, dict(zip(keys, key, strict=True)), unit, by_run, total_s=totals[key])
        for key, by_run in values.items()
    ]


def root_durations(scope: Scope) -> list[Series]:
    rows = [row for row in scope.rows("root_operations") if not row["operation"].startswith("hub.startup")]
    return _by(rows, "root.duration", {"operation": "operation"}, "median_s")


def query_durations(scope: Scope) -> list[Series]:
    keys = {"operation": "operation", "query": "shape"}
    return _by(scope.rows("query_shapes"), "query.duration", keys, "median_s")


def startup_durations(scope: Scope) -> list[Series]:
    rows = [row for row in scope.rows("startup") if row["ended_by"] != "exit"]
    return _by(rows, "startup.duration", {"type": "type"}, "duration_s", total="duration_s")


def phase_durations(scope: Scope) -> list[Series]:
    return _by(scope.rows("startup_phases"), "startup.phase_duration", {"phase": "phase"}, "sum_s")


def import_totals(scope: Scope) -> list[Series]:
    rows = scope.rows("startup_imports")
    totals = {row["run"]: 0.0 for row in scope.rows("startup")}
    imports = {(row["trace_id"], row["span_id"]) for row in rows}
    for row in rows:
        if (row["trace_id"], row["parent_span_id"]) not in imports and row["run"] in totals:
            totals[row["run"]] += row["duration_s"]
    if not totals:
        return []
    return [Series("startup.import_total", {}, "s", totals, total_s=sum(totals.values()), least=IMPORT_RECORDED_S)]


def vector_searches(scope: Scope) -> list[Series]:
    rows = [{**row, **vector_dimensions(row)} for row in scope.rows("vector_searches")]
    keys = {name: name for name in ("system", "index", "index_type", "vectors")}
    return _by(rows, "vector.search_duration", keys, "median_s")


def vector_dimensions(row: Row) -> dict[str, str]:
    """What tells an index from others, of a row of `vector_searches`. `vectors`: `10,000 to 99,999 vectors`, or ''."""
    low = row["size_from"]
    return {
        "system": row["system"],
        "index": row["index_name"],
        "index_type": row["index_type"],
        "vectors": f"{low:,.0f} to {low * 10 - 1:,.0f} vectors" if low else "",
    }


def vector_search_duration(scope: Scope, dimensions: Mapping[str, str]) -> dict[str, float]:
    """See the top of this file. Dimensions left out (older predictions have `index` alone) are not looked at."""
    by_run: dict[str, list[tuple[bool, int, float]]] = defaultdict(list)
    for row in scope.rows("vector_searches"):
        has = vector_dimensions(row)
        if all(has[name] == value for name, value in dimensions.items() if name != "index_type"):
            same = has["index_type"] == dimensions.get("index_type", has["index_type"])
            by_run[row["run"]].append((same, row["n"], float(row["median_s"])))
    return {run: max(rows)[2] for run, rows in by_run.items()}  # of several the one searched most often


def plugin_times(scope: Scope) -> list[Series]:
    return _by(scope.rows("plugin_calls"), "plugin.time_per_call", {"plugin": "plugin", "hook": "hook"}, "mean_s")


@dataclasses.dataclass(frozen=True)
class CacheUse:
    """One cache in one run: look-ups and hits as counted by the application, else as logged."""

    lookups: float
    hits: float


def cache_use(scope: Scope) -> dict[tuple[str, str], CacheUse]:
    """(run, cache) -> use. The counter counts every look-up; the access log stands in where no counter came."""
    counted: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in scope.rows("counter_growth", metric=METRIC_CACHE_REQUESTS):
        attributes = row["attributes"]
        key = (row["run"], attributes.get(HUB_CACHE_NAME, ""))
        counted[key][attributes.get(HUB_CACHE_RESULT, "")] += float(row["grown"] or 0)
    found = {
        key: CacheUse(sum(results.values()), results.get("hit", 0.0))
        for key, results in counted.items()
        if sum(results.values()) > 0
    }
    logged: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in scope.rows("cache_accesses"):
        if row["hits"]:
            logged[row["run"], row["cache"]].append(row["hits"])
    for key, stretches in logged.items():
        hits = "".join(stretches)
        found.setdefault(key, CacheUse(float(len(hits)), float(hits.count("1"))))
    return found


def cache_hit_rates(scope: Scope) -> list[Series]:
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for (run, cache), use in cache_use(scope).items():
        values[cache][run] = use.hits / use.lookups
    return [
        Series("cache.hit_rate", {"cache": cache}, "1", by_run, higher_is_better=True)
        for cache, by_run in values.items()
    ]


def cache_load_times(scope: Scope) -> list[Series]:
    """0 where a cache was looked up and nothing was loaded."""
    loads = {(row["run"], row["cache"]): row["sum_s"] for row in scope.rows("cache_loads")}
    values: dict[str, dict[str, float]] = defaultdict(dict)
    totals: dict[str, float] = defaultdict(float)
    for (run, cache), use in cache_use(scope).items():
        values[cache][run] = loads.get((run, cache), 0.0) / use.lookups
        totals[cache] += loads.get((run, cache), 0.0)
    return [
        Series("cache.load_time_per_lookup", {"cache": cache}, "s", by_run, total_s=totals[cache])
        for cache, by_run in values.items()
    ]


# What a comparison looks at, in this order.
COMPARED: Final[tuple[Callable[[Scope], list[Series]], ...]] = (
    root_durations,
    startup_durations,
    phase_durations,
    import_totals,
    query_durations,
    vector_searches,
    plugin_times,
    cache_hit_rates,
    cache_load_times,
)


def query_time_per_operation(scope: Scope, dimensions: Mapping[str, str]) -> dict[str, float]:
    """See the top of this file. `collections` is a comma-separated list."""
    times: dict[str, float] = {}
    for row in scope.rows("operation_queries", operation=dimensions["operation"]):
        times.setdefault(row["run"], 0.0)
        if _is_meant(row, dimensions):
            times[row["run"]] += row["sum_s"] / row["occurrences"]
    return times


def query_loop_time_per_operation(scope: Scope, dimensions: Mapping[str, str]) -> dict[str, float]:
    """See the top of this file. What of a shape ran in no loop counts as it was recorded."""
    rows = scope.rows("operation_queries", operation=dimensions["operation"])
    occurrences = {row["run"]: row["occurrences"] for row in rows}
    times = dict.fromkeys(occurrences, 0.0)
    in_loops: dict[tuple[str, str], float] = defaultdict(float)
    for row in query_loops(scope):
        if row["operation"] == dimensions["operation"] and row["run"] in times and _is_meant(row, dimensions):
            times[row["run"]] += row["sum_s"] / occurrences[row["run"]]
            in_loops[row["run"], row["shape"]] += row["queries_each"] * row["times"]
    for row in rows:
        if row["n"] and _is_meant(row, dimensions):
            outside = max(row["n"] - in_loops[row["run"], row["shape"]], 0.0)
            times[row["run"]] += outside / row["n"] * row["sum_s"] / row["occurrences"]
    return times


def query_loops(scope: Scope) -> list[Row]:
    """Every loop of queries in the scope's runs, of shapes whose loop takes long enough in some run of the service."""
    return scope.rows("n_plus_one", min_ns=N_PLUS_ONE_NS, min_count=N_PLUS_ONE_QUERIES)


def _is_meant(row: Row, dimensions: Mapping[str, str]) -> bool:
    return (
        row["parent"] == dimensions["parent"]
        and row["collection"] in dimensions["collections"].split(",")
        and row["shape"] != dimensions.get("but_not", "")
    )


def package_import_time(scope: Scope, dimensions: Mapping[str, str]) -> dict[str, float]:
    """Import time charged to the named packages: each of their imports less the imports directly inside it.

    What was imported below the recording threshold has no span and is charged to the import around it.
    """
    packages = set(dimensions["packages"].split(","))
    times = {row["run"]: 0.0 for row in scope.rows("startup")}
    rows = scope.rows("startup_imports")
    for row, own_s in zip(rows, own_times_s(rows), strict=True):
        if top_level(row["module"]) in packages and row["run"] in times:
            times[row["run"]] += own_s
    return times


def startup_part_time(scope: Scope, dimensions: Mapping[str, str]) -> dict[str, float]:
    """See the top of this file."""
    times = {row["run"]: 0.0 for row in scope.rows("startup")}
    for row in scope.rows("startup_parts"):
        if row["direct"] and not row["shape"] and not row["phases"] and row["name"] == dimensions["part"]:
            times[row["run"]] = times.get(row["run"], 0.0) + row["sum_s"]
    return times


_LISTED: Final = {
    "root.duration": root_durations,
    "query.duration": query_durations,
    "startup.duration": startup_durations,
    "startup.phase_duration": phase_durations,
    "startup.import_total": import_totals,
    "plugin.time_per_call": plugin_times,
    "cache.hit_rate": cache_hit_rates,
    "cache.load_time_per_lookup": cache_load_times,
}
_ASKED: Final = {
    "query.time_per_operation": query_time_per_operation,
    "query.loop_time_per_operation": query_loop_time_per_operation,
    "startup.package_import_time": package_import_time,
    "startup.part_duration": startup_part_time,
    "vector.search_duration": vector_search_duration,
}


def observe(scope: Scope, metric: str, dimensions: Mapping[str, str]) -> dict[str, float]:
    """The metric's value in each run of the scope that has one; empty where none has, or the metric is unknown."""
    if metric in _ASKED:
        return _ASKED[metric](scope, dimensions)
    for series in _LISTED[metric](scope) if metric in _LISTED else ():
        if dict(series.dimensions) == dict(dimensions):
            return dict(series.values)
    return {}

"""Plugins over a quota: by the violation events, which say what was allowed when it ran, and by the spans and rules
where no event came (an application that sent no logs)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from hubscope.analytics import plugin_durations
from hubscope.analytics.findings import (
    Outcome,
    counted,
    duration,
    fingerprint,
    grouped,
    impact,
    one_span,
    severity_by_ratio,
    size,
    total,
    worst,
)
from hubscope.analytics.model import Bottleneck, Checked, NotJudged
from hubscope.analytics.scope import Row, Scope
from hubscope.processors.limits import spread
from hubscope.processors.rules import Quota
from hubscope.semconv import HUB_PLUGIN_ID, HUB_QUOTA_RESOURCE, METRIC_QUOTA_VIOLATIONS

NAME: Final = "plugin_over_quota"


# A plugin without spans, its longest call by the metric where known, its time quota where it has one.
MetricOnly = tuple[str, float | None, Quota | None]


def _by_metric_only(scope: Scope, calls: Mapping[tuple[str, ...], list[Row]]) -> list[MetricOnly]:
    """Plugins whose calls made no span: the metric names no tier, so they are held against the quota of the default."""
    points: dict[str, list[Row]] = defaultdict(list)
    for (plugin, _), rows in plugin_durations.points(scope).items():
        if (plugin,) not in calls:
            points[plugin] += rows
    return [
        (plugin, plugin_durations.longest_s(rows), scope.rules.quota("execution", plugin, "", None))
        for plugin, rows in points.items()
    ]


def execution_quota(scope: Scope, row: Row) -> Quota | None:
    """The time limit of one call that the rules set for the plugin of a plugin_calls row."""
    permissions = frozenset(p.strip(' "') for p in (row["permissions"] or "").strip("[]").split(",") if p.strip(' "'))
    return scope.rules.quota("execution", row["plugin"], row["tier"], permissions or None)


def detect(scope: Scope) -> Outcome:
    calls = grouped(scope.rows("plugin_calls"), "plugin")
    counts = _counted(scope)
    breaches: dict[str, list[dict[str, Any]]] = {}
    for (plugin,), group in grouped(scope.rows("quota_violations"), "plugin").items():
        breaches[plugin] = [_from_events(scope, rows, counts) for rows in grouped(group, "resource").values()]
    for (plugin,), group in calls.items():
        if any(breach["resource"] == "execution" for breach in breaches.get(plugin, ())):
            continue
        slowest = worst(group, "max_s")
        quota = execution_quota(scope, slowest)
        if quota is not None and slowest["max_s"] > quota.limit:
            breaches.setdefault(plugin, []).append(_from_spans(slowest, quota))
    metric_only = _by_metric_only(scope, calls)
    for plugin, longest_s, quota in metric_only:
        if plugin not in breaches and longest_s is not None and quota is not None and longest_s > quota.limit:
            slowest = {"max_s": longest_s, "worst_trace": None, "worst_span": None, "hook": ""}
            breaches[plugin] = [_from_spans(slowest, quota)]
    findings = [
        _finding(scope, plugin, found, calls.get((plugin,), [])) for plugin, found in sorted(breaches.items()) if found
    ]
    fine, not_judged = _within(calls, metric_only, set(breaches))
    return Outcome(tuple(findings), fine, not_judged)


# What a span says of its call, by the column of plugin_calls that counts it; execution is the span's own duration.
_MEASURED: Final = {"cpu": "cpu_n", "memory": "memory_n", "network": "network_n", "filesystem": "filesystem_n"}
_SHOWN: Final = {"execution": "time", "cpu": "CPU", "filesystem": "file system"}


def _within(
    calls: Mapping[tuple[str, ...], list[Row]], metric_only: list[MetricOnly], over: set[str]
) -> tuple[tuple[Checked, ...], tuple[NotJudged, ...]]:
    """Who stayed within what was measured of its calls, and what was not: a quota nothing measured was not kept.

    Of a plugin whose calls made no span (each below 50 µs) the metric's longest call is held against the time quota.
    """
    measured: dict[str, list[str]] = {}
    for (plugin,), group in calls.items():
        seen = [resource for resource, column in _MEASURED.items() if total(group, column)]
        measured[plugin] = ["execution", *seen]
    for plugin, longest_s, quota in metric_only:
        if plugin not in over:
            measured[plugin] = ["execution"] if quota is not None and longest_s is not None else []
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    lacking: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for plugin, resources in measured.items():
        if resources and plugin not in over:
            alike[tuple(resources)].append(plugin)
        lacking[tuple(r for r in ("execution", *_MEASURED) if r not in resources)].append(plugin)
    fine = [
        Checked(f"plugin quotas of {_listed(kept)}", f"{counted(len(who), 'plugin')} stayed within: {_some(who)}")
        for kept, who in alike.items()
    ]
    not_judged = [
        NotJudged(
            f"plugin quotas of {_listed(missing)} ({counted(len(who), 'plugin')}: {_some(who)})",
            f"{_listed(missing)} of plugin calls in this process {'are' if len(missing) > 1 else 'is'} not measured",
        )
        for missing, who in lacking.items()
        if missing
    ]
    return tuple(fine), tuple(not_judged)


def _listed(resources: tuple[str, ...]) -> str:
    names = [_SHOWN.get(resource, resource) for resource in resources]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _some(plugins: list[str]) -> str:
    return ", ".join(plugins[:8]) + (" …" if len(plugins) > 8 else "")


def _counted(scope: Scope) -> dict[tuple[str, str], float]:
    """(plugin, resource) -> violations, by the counter: of a plugin's events only the first 20 a minute are told."""
    counts: dict[tuple[str, str], float] = defaultdict(float)
    for row in scope.rows("counter_growth", metric=METRIC_QUOTA_VIOLATIONS):
        attributes = row["attributes"]
        counts[attributes.get(HUB_PLUGIN_ID, ""), attributes.get(HUB_QUOTA_RESOURCE, "")] += float(row["grown"] or 0)
    return counts


def _cpu_share(scope: Scope, plugin: str, window_s: float) -> float:
    """The share of a CPU that the plugin's calls used in the fullest window of any run; 0.0 without CPU in spans."""
    window_ns = round(window_s * 1e9)
    used: dict[tuple[str, int], float] = defaultdict(float)
    for row in scope.rows("plugin_cpu_windows", plugin=plugin, window_ns=window_ns):
        for window, part in spread(row["start_ns"], row["end_ns"], row["cpu_s"], window_ns):
            used[row["run"], window] += part
    return max(used.values(), default=0.0) / window_s


def _from_events(scope: Scope, rows: list[Row], counts: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """An event about a window is told when the limit is crossed: what was used in the end is more, the spans know."""
    example = worst(rows, "observed_max")
    told, window_s = example["observed_max"], example["window_s"] or 0.0
    used = _cpu_share(scope, example["plugin"], window_s) if example["resource"] == "cpu" and window_s else 0.0
    return {
        "resource": example["resource"],
        "limit": example["limit_value"],
        "observed": max(told, used),
        "at_least": window_s > 0 and used <= told,
        "unit": example["unit"],
        "action": example["action"],
        "count": round(max(total(rows, "n"), counts.get((example["plugin"], example["resource"]), 0.0))),
        "trace_id": example["worst_trace"],
        "span_id": example["worst_span"],
        "hook": example["hook"],
    }


def _from_spans(slowest: Row, quota: Quota) -> dict[str, Any]:
    return {
        "resource": "execution",
        "limit": quota.limit,
        "observed": slowest["max_s"],
        "at_least": False,
        "unit": "s",
        "action": "observed",
        "count": 1,
        "trace_id": slowest["worst_trace"],
        "span_id": slowest["worst_span"],
        "hook": slowest["hook"],
    }


def _ratio(breach: dict[str, Any]) -> float:
    return float(breach["observed"]) / breach["limit"] if breach["limit"] else float("inf")


def _finding(scope: Scope, plugin: str, breaches: list[dict[str, Any]], calls: list[Row]) -> Bottleneck:
    # Time first: it is what a user waits for.
    breaches.sort(key=lambda b: (b["resource"] != "execution", -_ratio(b)))
    main = breaches[0]
    others = sorted({breach["resource"] for breach in breaches[1:]})
    also = f"; also over its quota of {', '.join(others)}" if others else ""
    over_s = 0.0
    if main["resource"] == "execution" and calls:
        over_s = sum(max(row["sum_s"] - row["n"] * main["limit"], 0.0) for row in calls)
    wall = sum(scope_row["sum_s"] for scope_row in scope.rows("root_operations"))
    spent = total(calls, "sum_s")
    hook = max(calls, key=lambda row: float(row["sum_s"]))["hook"] if calls else main["hook"]
    at_least = "at least " if main["at_least"] else ""
    mean = f", {duration(spent / total(calls, 'n'))} a call" if calls else ""
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, plugin),
        detector=NAME,
        severity=severity_by_ratio(_ratio(main)) if _ratio(main) < 10 else "high",
        service=scope.service,
        operation=f"plugin {plugin} {hook}".strip(),
        sentence=(
            f"The plugin {plugin} used {at_least}{size(main['observed'], main['unit'])} of {main['resource']} "
            f"where its quota is {size(main['limit'], main['unit'])}, {counted(main['count'], 'time')}{mean}{also}: "
            f"make it cheaper, or "
            f"take it off the path that a user waits on."
        ),
        impact=impact(
            scope,
            over_s if main["resource"] == "execution" else None,
            min(spent / wall, 1.0) if wall and calls else None,
            "runtime.plugin_overhead" if wall and calls else None,
        ),
        evidence=one_span(main["trace_id"], main["span_id"]),
        version=scope.name or None,
        facts={
            "plugin": plugin,
            "hook": hook,
            "breaches": [
                {k: b[k] for k in ("resource", "limit", "observed", "unit", "action", "count")} for b in breaches
            ],
        },
    )

"""A plugin over its time quota: kept within it, made as quick as its neighbours on the hook, or moved off the path."""

from __future__ import annotations

import statistics

from hubscope.analytics.findings import duration, total
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommended, together


def recommend(case: Case) -> Advice:
    return together([_one(case, finding) for finding in case.of("plugin_over_quota")])


def _one(case: Case, finding: Bottleneck) -> Advice:
    plugin, hook = finding.facts["plugin"], finding.facts["hook"]
    limit_s = next((b["limit"] for b in finding.facts["breaches"] if b["resource"] == "execution"), None)
    if limit_s is None:
        resources = ", ".join(b["resource"] for b in finding.facts["breaches"])
        return not_made(
            finding, "holding the plugin to its quota", f"a quota of {resources} does not say how much time"
        )
    dimensions = {"plugin": plugin, "hook": hook}
    values = observe(case.scope, "plugin.time_per_call", dimensions)
    if not values:
        return not_made(finding, "holding the plugin to its quota", "its calls have no spans")
    now = statistics.median(values.values())
    rows = case.scope.rows("plugin_time_over", plugin=plugin, hook=hook, limit_s=float(limit_s))
    held = total([{"s": r["held_mean_s"] * r["n"]} for r in rows], "s") / total(rows, "n")
    others = [r["median_s"] for r in case.scope.rows("plugin_calls") if r["hook"] == hook and r["plugin"] != plugin]
    like_others = min(statistics.median(others), held) if others else None
    then = like_others if like_others is not None else held
    likely = (
        f"as quick as the other plugins on the hook (median {duration(then)})"
        if like_others is not None
        else f"no call past the quota of {duration(limit_s)}"
    )
    return recommended(
        case,
        finding,
        "plugin_within_quota",
        change=(
            f"Make the plugin {plugin} keep to {duration(limit_s)} a call in {hook}, or run it after the "
            "answer instead of before it."
        ),
        where=f"plugin {plugin}, hook {hook}",
        metric="plugin.time_per_call",
        dimensions=dimensions,
        now=now,
        then=then,
        then_low=0.0,
        then_high=held,
        method=(
            f"its calls take {duration(now)}; {likely}. At least what is over the quota is saved "
            f"({duration(held)} left), at most all of it, when it leaves the path"
        ),
        saved_s=(now - then) * total(rows, "n"),
        verify=f"no hub.quota.violation of {plugin}; plugin.time_per_call of {plugin} {hook} falls",
    )

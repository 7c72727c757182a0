"""Plugin overhead: the time plugins add to one request or task, over the plan's 50 ms.

Not reported where plugins that are over their quota explain it: then that is the finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hubscope.analytics.detectors import plugin_over_quota
from hubscope.analytics.findings import (
    EXPLAINED,
    OVERHEAD_OPERATIONS,
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
from hubscope.analytics.model import Bottleneck, Checked, NotJudged
from hubscope.analytics.scope import Row, Scope

NAME: Final = "plugin_overhead"


def detect(scope: Scope) -> Outcome:
    rows = [row for row in scope.rows("plugin_overhead") if row["operation"] is not None]
    if not rows:
        return Outcome()
    target_s = kpi_limit(scope, "runtime.plugin_overhead", 0.05)
    calls = scope.rows("plugin_calls")
    over_quota = {f.facts["plugin"] for f in plugin_over_quota.detect(scope).findings}
    explained = total([row for row in calls if row["plugin"] in over_quota], "sum_s")
    share_explained = explained / max(total(calls, "sum_s"), 1e-9)
    by_operation = grouped(scope.rows("plugin_overhead_by_plugin"), "operation")
    roots = root_time_s(scope)
    findings, fine, not_judged = [], [], []
    for (operation,), group in grouped(rows, "operation").items():
        p95_s = typical(group, "p95")
        what = f"plugin overhead in {operation}"
        seen = round(total(group, "n"))
        if p95_s < target_s:
            fine.append(Checked(what, f"p95 {duration(p95_s)}, target {duration(target_s)}"))
        elif seen < OVERHEAD_OPERATIONS:
            because = f"{counted(seen, 'operation')} with plugins seen, {OVERHEAD_OPERATIONS} needed"
            not_judged.append(NotJudged(what, because))
        elif share_explained < EXPLAINED:
            own = grouped(by_operation.get((operation,), []), "plugin")
            dearest = sorted(own.items(), key=lambda item: -total(item[1], "sum_s"))
            names = ", ".join(plugin for (plugin,), _ in dearest[:3])
            example = worst(group, "p95")
            share = min(total(group, "sum_s") / roots[operation], 1.0) if roots.get(operation) else None
            findings.append(
                Bottleneck(
                    fingerprint=fingerprint(NAME, scope.service, operation),
                    detector=NAME,
                    severity=severity_by_ratio(p95_s / target_s),
                    service=scope.service,
                    operation=operation,
                    sentence=(
                        f"Plugins add {duration(typical(group, 'p50'))} to {operation}, p95 {duration(p95_s)}, "
                        f"target {duration(target_s)}; most of it {names}."
                    ),
                    impact=impact(
                        scope,
                        total(group, "sum_s") - total(group, "n") * target_s,
                        share,
                        "runtime.plugin_overhead",
                    ),
                    evidence=one_span(example["worst_trace"], None),
                    version=scope.name or None,
                    facts={
                        "p95_s": p95_s,
                        "target_s": target_s,
                        "plugins": [p for (p,), _ in dearest[:8]],
                        "dearest": _dearest_hook(calls, [p for (p,), _ in dearest[:1]]),
                    },
                )
            )
    return Outcome(tuple(findings), tuple(fine), tuple(not_judged))


def _dearest_hook(calls: Sequence[Row], plugins: Sequence[str]) -> dict[str, str]:
    """The plugin's hook that took most time, as the dimensions of plugin.time_per_call; {} where none was seen."""
    hooks = grouped([row for row in calls if row["plugin"] in plugins], "plugin", "hook")
    most = max(hooks.items(), key=lambda item: total(item[1], "sum_s"), default=None)
    return {"plugin": most[0][0], "hook": most[0][1]} if most else {}

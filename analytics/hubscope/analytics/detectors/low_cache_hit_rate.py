"""Caches below the plan's hit rate of 80 % that a larger capacity would lift.

A cache whose misses are first look-ups only is not too small; it is cold, and is said to be that.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from hubscope.analytics import lru
from hubscope.analytics.findings import (
    CACHE_GAIN,
    CACHE_LOOKUPS,
    Outcome,
    counted,
    duration,
    fingerprint,
    impact,
    kpi_limit,
    one_span,
    total,
    worst,
)
from hubscope.analytics.metrics import cache_use
from hubscope.analytics.model import Bottleneck, Checked, NotJudged
from hubscope.analytics.scope import Scope

NAME: Final = "low_cache_hit_rate"


def access_logs(scope: Scope, cache: str) -> dict[str, tuple[lru.Curve, int | None]]:
    """Run -> (curve of its access log, capacity then). Keys of different runs cannot be told equal."""
    keys: dict[str, list[str]] = defaultdict(list)
    capacity: dict[str, int | None] = {}
    one_in: dict[str, int] = {}
    for row in scope.rows("cache_accesses"):
        if row["cache"] == cache and row["keys"]:
            keys[row["run"]].extend(row["keys"].split(","))
            capacity[row["run"]] = int(row["capacity"]) if row["capacity"] is not None else None
            one_in[row["run"]] = int(row["one_in"] or 1)
    return {run: (lru.curve(log, one_in[run]), capacity[run]) for run, log in keys.items()}


def detect(scope: Scope) -> Outcome:
    target = kpi_limit(scope, "memory.cache_hit_rate", 0.8)
    uses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (_, cache), use in cache_use(scope).items():
        uses[cache].append((use.lookups, use.hits))
    findings, fine, unsure = [], [], []
    for cache, counts in sorted(uses.items()):
        lookups, hits = sum(n for n, _ in counts), sum(h for _, h in counts)
        rate, what = hits / lookups, f"cache {cache}"
        if lookups < CACHE_LOOKUPS:
            unsure.append(NotJudged(what, f"{counted(round(lookups), 'look-up')}, fewer than {CACHE_LOOKUPS}"))
            continue
        if rate >= target:
            fine.append(Checked(what, f"hit rate {rate:.0%}, target {target:.0%}"))
            continue
        logs = access_logs(scope, cache)
        logged = sum(c.accesses for c, _ in logs.values())
        best = 1 - sum(c.first for c, _ in logs.values()) / logged if logged else None
        if best is not None and best < rate + CACHE_GAIN:
            why = f"hit rate {rate:.0%}, but no size would exceed {best:.0%}: most misses are first look-ups"
            fine.append(Checked(what, why))
            continue
        findings.append(_finding(scope, cache, rate, best, lookups, target, logs))
    return Outcome(tuple(findings), tuple(fine), tuple(unsure))


def _finding(
    scope: Scope,
    cache: str,
    rate: float,
    best: float | None,
    lookups: float,
    target: float,
    logs: dict[str, tuple[lru.Curve, int | None]],
) -> Bottleneck:
    loads = [row for row in scope.rows("cache_loads") if row["cache"] == cache]
    sizes = sorted({capacity for _, capacity in logs.values() if capacity is not None})
    holds = f" of {counted(sizes[-1], 'item')}" if sizes else ""
    could = f"; with room for all it would be {best:.0%}" if best is not None else ""
    each = f", and each miss costs {duration(total(loads, 'sum_s') / total(loads, 'n'))}" if loads else ""
    example = worst(loads, "mean_s") if loads else None
    wall = total(scope.rows("root_operations"), "sum_s")
    avoidable_s = total(loads, "sum_s") * (min((best - rate) / (1 - rate), 1.0) if best is not None else 1.0)
    return Bottleneck(
        fingerprint=fingerprint(NAME, scope.service, cache),
        detector=NAME,
        severity="high" if rate < target / 2 else "medium",
        service=scope.service,
        operation=f"cache {cache}",
        sentence=(
            f"The cache {cache}{holds} answers {rate:.0%} of its look-ups (target {target:.0%}){could}{each}: "
            f"it is too small for what is looked up in it."
        ),
        impact=impact(
            scope,
            avoidable_s if loads else None,
            min(total(loads, "sum_s") / wall, 1.0) if loads and wall else None,
            "runtime.response_time" if loads and wall else None,
        ),
        evidence=one_span(example["worst_trace"], example["worst_span"], example["worst_parent"] or "")
        if example
        else (),
        version=scope.name or None,
        facts={"cache": cache, "hit_rate": rate, "best_hit_rate": best, "lookups": lookups, "capacity": sizes[-1:]},
    )

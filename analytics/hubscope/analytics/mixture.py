"""KPIs over a mixture: what their value is pooled from, and whether two groups of runs have the same mix of it.

The p95 over all queries falls when 1,200 short ones are added in a loop, and rises when they become one query. Nothing
got faster or slower by that, so such a change is no verdict unless one of the kinds pooled changed that way by itself.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from hubscope.analytics.metrics import cache_use
from hubscope.analytics.model import Comparison
from hubscope.analytics.scope import Scope

# Of all samples so many must be of other kinds before the mix counts as changed. A percentile p95 may hang on a
# twentieth of the samples; runs of one program differ by less.
CHANGED: Final = 0.05


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a KPI pools: rows with a count `n`, by the columns that tell kinds apart; what compares a kind."""

    rows: str
    kinds: tuple[str, ...]
    metric: str


MIXTURES: Final[Mapping[str, Mixture]] = {
    "memory.query_time": Mixture("query_shapes", ("operation", "shape"), "query.duration"),
    "memory.vector_search_time": Mixture(
        "vector_searches", ("system", "index_name", "index_type", "size_from"), "vector.search_duration"
    ),
    "memory.cache_hit_rate": Mixture("", (), "cache.hit_rate"),
    "runtime.plugin_overhead": Mixture("plugin_calls", ("plugin", "hook"), "plugin.time_per_call"),
    "runtime.response_time": Mixture("root_operations", ("operation",), "root.duration"),
    "ux.satisfaction": Mixture("root_operations", ("operation",), "root.duration"),
}


def doubt(kpi: str, verdict: str, before: Scope, after: Scope, compared: Sequence[Comparison]) -> str:
    """Why a KPI's better or worse is none: its mix changed, and no kind on both sides changed that way more than
    others changed the other way. '' where it stands. `compared` are the comparisons of these two groups."""
    mixture = MIXTURES.get(kpi)
    if mixture is None or verdict not in ("better", "worse"):
        return ""
    moved = _moved(_shares(mixture, before), _shares(mixture, after))
    if moved <= CHANGED:
        return ""
    kinds = [c.verdict for c in compared if c.metric == mixture.metric]
    other = "worse" if verdict == "better" else "better"
    if verdict in kinds and other not in kinds:
        return ""
    seen = "none that both have changed so" if verdict not in kinds else "those that both have changed both ways"
    return f"the mix changed: {moved:.0%} of what it is taken over are of other kinds; of these {seen}"


def _shares(mixture: Mixture, scope: Scope) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = defaultdict(float)
    if mixture.rows:
        for row in scope.rows(mixture.rows):
            counts[tuple(str(row[column]) for column in mixture.kinds)] += float(row["n"])
    else:
        for (_, cache), use in cache_use(scope).items():
            counts[(cache,)] += use.lookups
    in_all = sum(counts.values())
    return {kind: n / in_all for kind, n in counts.items()} if in_all else {}


def _moved(old: Mapping[tuple[str, ...], float], new: Mapping[tuple[str, ...], float]) -> float:
    """The share of samples that would have to be of another kind for the mixes to be equal (total variation)."""
    return sum(abs(old.get(kind, 0.0) - new.get(kind, 0.0)) for kind in old.keys() | new.keys()) / 2

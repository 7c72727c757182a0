"""A larger cache: hit rates at every capacity from the access log, exactly, and what the spared loads took."""

from __future__ import annotations

import statistics
from typing import Final

from hubscope.analytics.detectors.low_cache_hit_rate import access_logs
from hubscope.analytics.findings import duration, total
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommended, together

# The capacity that gives this share of the hits that any capacity gives: the last few cost the most room.
ENOUGH: Final = 0.99
# Which misses a larger cache spares is known exactly, not what just those took: the others, first look-ups most often,
# may load items half or twice as dear. What all took together is known, so some is saved wherever a miss is spared.
UNLIKE: Final = 2.0


def recommend(case: Case) -> Advice:
    return together([_one(case, finding) for finding in case.of("low_cache_hit_rate")])


def _one(case: Case, finding: Bottleneck) -> Advice:
    cache = finding.facts["cache"]
    logs = access_logs(case.scope, cache)
    loads = [row for row in case.scope.rows("cache_loads") if row["cache"] == cache]
    if not logs:
        return not_made(finding, "a larger cache", "it sent no access log (hub.watch_cache does)")
    if not loads:
        return not_made(finding, "a larger cache", "what a miss costs is not known: no load was measured")
    curves = [curve for curve, _ in logs.values()]
    needed = [curve.capacity_for(round(ENOUGH * (curve.accesses - curve.first))) or 1 for curve in curves]
    capacity = max(needed)
    accesses = sum(curve.accesses for curve in curves)
    miss_rate = sum(curve.misses(capacity) for curve in curves) / accesses
    dimensions = {"cache": cache}
    values = observe(case.scope, "cache.load_time_per_lookup", dimensions)
    now = statistics.median(values.values())
    rate_now = float(finding.facts["hit_rate"])
    spared_rate: float = 1 - rate_now - miss_rate
    if spared_rate <= 0:
        because = "replayed as one that drops what was used longest ago, no size of it spares a miss that was logged"
        return not_made(finding, "a larger cache", because)

    def left(unlike: float) -> float:
        """Load time a look-up where a miss that stays takes `unlike` times what a spared one does."""
        return now * miss_rate * unlike / (spared_rate + miss_rate * unlike)

    # How much slower one run is than another is in the spread of the runs already: counted here too it left no saving.
    load_s = total(loads, "sum_s") / total(loads, "n")
    return recommended(
        case,
        finding,
        "larger_cache",
        change=f"Let the cache {cache} hold {capacity} items instead of {_held(finding)}.",
        where=f"cache {cache}",
        metric="cache.load_time_per_lookup",
        dimensions=dimensions,
        now=now,
        then=left(1.0),
        then_low=left(1 / UNLIKE),
        then_high=left(UNLIKE),
        method=(
            f"exact LRU stack distances over {accesses} logged look-ups: hit rate {rate_now:.0%} now, "
            f"{1 - miss_rate:.0%} with {capacity} items; a miss takes {duration(load_s)}, the range holds for "
            f"{spared_rate:.0%} spared ones that take half or twice what the others do"
        ),
        saved_s=(now - left(1.0)) * finding.facts["lookups"],
        verify=f"the hit rate of {cache} rises to about {1 - miss_rate:.0%}",
    )


def _held(finding: Bottleneck) -> str:
    sizes = finding.facts["capacity"]
    return str(sizes[0]) if sizes else "what it holds now"

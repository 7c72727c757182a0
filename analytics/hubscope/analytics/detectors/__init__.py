"""What is slow, and why: each detector is a function of one group of runs, and the order stands here once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubscope.analytics.detectors import (
    low_cache_hit_rate,
    n_plus_one,
    plugin_over_quota,
    plugin_overhead,
    slow_imports,
    slow_phase,
    slow_query,
    slow_vector_search,
)
from hubscope.analytics.findings import Outcome
from hubscope.analytics.scope import Scope

Detector = Callable[[Scope], Outcome]

DETECTORS: Final[tuple[Detector, ...]] = (
    n_plus_one.detect,
    slow_query.detect,
    slow_vector_search.detect,
    slow_phase.detect,
    slow_imports.detect,
    plugin_over_quota.detect,
    plugin_overhead.detect,
    low_cache_hit_rate.detect,
)

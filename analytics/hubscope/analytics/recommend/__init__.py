"""What to do about findings, and what it would save: each a function of one group of runs and its findings.

A prediction that cannot be made is not made: it stands among what could not be judged, with the reason. Each finding
has one or the other, so each detector is some recommender's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubscope.analytics.recommend import (
    add_index,
    batch_queries,
    faster,
    import_lazily,
    larger_cache,
    no_method,
    plugin_within_quota,
)
from hubscope.analytics.recommend.advice import Advice, Case

Recommender = Callable[[Case], Advice]

RECOMMENDERS: Final[tuple[Recommender, ...]] = (
    batch_queries.recommend,
    add_index.recommend,
    import_lazily.recommend,
    larger_cache.recommend,
    plugin_within_quota.recommend,
    faster.recommend,
    no_method.recommend,
)

__all__ = ["RECOMMENDERS", "Advice", "Case", "Recommender"]

"""What is slow for a root operation: above a percentile of its own durations in the last ten to twenty minutes."""

from __future__ import annotations

import math
from typing import Any, Final

from hubscope.processors.sketch import Sketch

WINDOW_NS: Final = 600 * 10**9
MAX_OPERATIONS: Final = 2000
# Before this many, a percentile says nothing: 1 % of 100 traces is one trace.
MIN_COUNT: Final = 100
_RENEWED: Final = 32  # additions after which the percentile is computed anew


class _Operation:
    __slots__ = ("before", "now", "since", "threshold_s", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.before = Sketch()
        self.now = Sketch()
        self.since = _RENEWED  # additions since the threshold was computed
        self.threshold_s = math.inf


class Slowness:
    """Durations by root operation. A quantile of 0 finds nothing slow."""

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile
        self._operations: dict[tuple[str, str], _Operation] = {}  # the least recently used first

    def is_slow(self, operation: tuple[str, str], duration_s: float, time_ns: int) -> bool:
        """Whether a duration is above what was usual before it; it is added."""
        if not self.quantile:
            return False
        window = time_ns // WINDOW_NS
        found = self._operations.pop(operation, None) or _Operation(window)
        self._operations[operation] = found
        if len(self._operations) > MAX_OPERATIONS:
            del self._operations[next(iter(self._operations))]
        if window > found.window:
            found.before = found.now if window == found.window + 1 else Sketch()
            found.now, found.window, found.since = Sketch(), window, _RENEWED
        if found.since >= _RENEWED:
            whole = Sketch()
            whole.merge(found.before)
            whole.merge(found.now)
            found.threshold_s = whole.quantile(self.quantile) if whole.count >= MIN_COUNT else math.inf
            found.since = 0
        found.now.add(duration_s)
        found.since += 1
        return duration_s > found.threshold_s * 1.022  # a bucket's width: equal durations are never slow

    def snapshot(self) -> list[Any]:
        return [
            [
                *key,
                o.window,
                o.before.to_json(),
                o.now.to_json(),
                o.since,
                None if math.isinf(o.threshold_s) else o.threshold_s,
            ]
            for key, o in self._operations.items()
        ]

    def restore(self, state: list[Any] | None) -> None:
        self._operations = {}
        for service, name, window, before, now, since, threshold_s in state or []:
            operation = self._operations[(service, name)] = _Operation(window)
            operation.before, operation.now = Sketch.from_json(before), Sketch.from_json(now)
            operation.since = since
            operation.threshold_s = math.inf if threshold_s is None else threshold_s

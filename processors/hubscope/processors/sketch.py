"""A mergeable distribution: the buckets of an OpenTelemetry exponential histogram of one fixed scale.

Scale 5 makes a bucket 2.2 % wide, so a quantile is off by 1.1 % at most, and every sketch merges with every other
without loss. Counts are kept sparse: durations of one operation fill 20 to 100 buckets.
Source: OpenTelemetry metrics data model, "ExponentialHistogram".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

SCALE: Final = 5
BUCKETS_PER_DOUBLING: Final = 2**SCALE
# How many different values one sketch counts exactly; above, `distinct` stays at this and is a lower bound.
MAX_DISTINCT: Final = 20_000


def bucket_of(value: float) -> int:
    """The bucket (base**i, base**(i + 1)] that holds `value` > 0."""
    return math.ceil(math.log2(value) * BUCKETS_PER_DOUBLING) - 1


def middle_of(bucket: int, scale: int = SCALE) -> float:
    """The geometric middle of a bucket of that scale; inf or 0.0 where it is beyond a double."""
    exponent = (bucket + 0.5) * 2.0**-scale
    return 2.0**exponent if -1074 < exponent < 1024 else (0.0 if exponent < 0 else math.inf)


class Sketch:
    """Counts of values, with exact count, sum, minimum, maximum and latest value. Values <= 0 share one bucket."""

    __slots__ = ("buckets", "count", "distinct", "high", "last", "last_ns", "low", "total", "zero")

    def __init__(self) -> None:
        self.buckets: dict[int, float] = {}
        self.zero = 0.0
        self.count = 0.0  # a float: increments of counters may be
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf
        self.last_ns = -1
        self.last = math.nan
        self.distinct: set[str] = set()

    def add(self, value: float, count: float = 1.0, time_ns: int = 0) -> None:
        """`count` times `value`; a value that is not finite is left out."""
        if not math.isfinite(value):
            return
        if value > 0:
            bucket = bucket_of(value)
            self.buckets[bucket] = self.buckets.get(bucket, 0.0) + count
        else:
            self.zero += count
        self.count += count
        self.total += value * count
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        if time_ns >= self.last_ns:
            self.last_ns, self.last = time_ns, value

    def add_grouped(
        self, buckets: Mapping[int, float], zero: float, count: float, total: float, low: float, high: float
    ) -> None:
        """Values that were already grouped by `bucket_of` (the batch form counts them in Arrow)."""
        for bucket, n in buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0.0) + n
        self.zero += zero
        self.count += count
        self.total += total
        self.low = min(self.low, low)
        self.high = max(self.high, high)

    def add_texts(self, texts: Iterable[str]) -> None:
        """Values whose number of different ones is wanted."""
        for text in texts:
            self.count += 1
            if len(self.distinct) < MAX_DISTINCT:
                self.distinct.add(text)

    def merge(self, other: Sketch) -> None:
        self.add_grouped(other.buckets, other.zero, other.count, other.total, other.low, other.high)
        if other.last_ns >= self.last_ns:
            self.last_ns, self.last = other.last_ns, other.last
        self.distinct |= other.distinct

    def quantile(self, q: float) -> float:
        """The value at rank ceil(q * count), within 1.1 %; NaN where there is none."""
        if self.count <= 0:
            return math.nan
        rank, seen = q * self.count, self.zero
        if seen >= rank and self.zero:
            return min(self.low, 0.0)
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(max(middle_of(bucket), self.low), self.high)
        return self.high

    def to_json(self) -> list[Any]:
        edges = [self.low, self.high, self.last] if self.count and self.last_ns >= 0 else None
        if edges is None and self.low <= self.high:
            edges = [self.low, self.high, 0.0]
        return [
            sorted(self.buckets.items()),
            self.zero,
            self.count,
            self.total,
            edges,
            self.last_ns,
            sorted(self.distinct),
        ]

    @classmethod
    def from_json(cls, data: list[Any]) -> Sketch:
        sketch = cls()
        buckets, sketch.zero, sketch.count, sketch.total, edges, sketch.last_ns, distinct = data
        sketch.buckets = {int(bucket): count for bucket, count in buckets}
        if edges is not None:
            sketch.low, sketch.high, sketch.last = edges
        sketch.distinct = set(distinct)
        return sketch

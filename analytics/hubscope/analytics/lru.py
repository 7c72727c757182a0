"""Hit rates of a least-recently-used cache at every capacity, from one pass over its access log.

Mattson et al. 1970: the stack distance of an access is the number of different keys since the last access to the same
key, itself included; a cache of capacity C hits exactly where the distance is at most C. Counted with a Fenwick tree
over positions: n log n.

A log of one in `one_in` keys, with all their look-ups, has distances that are as many times too short (Waldspurger et
al. 2015, SHARDS).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Sequence


@dataclasses.dataclass(frozen=True)
class Curve:
    """`distances[d]` accesses would be hits in any cache of at least `d` items; `first` can be hits in none."""

    accesses: int
    first: int
    distances: dict[int, int]

    def hits(self, capacity: int) -> int:
        return sum(n for distance, n in self.distances.items() if distance <= capacity)

    def misses(self, capacity: int) -> int:
        return self.accesses - self.hits(capacity)

    def capacity_for(self, hits: int) -> int | None:
        """The smallest capacity with at least that many hits, or None where no capacity has."""
        seen = 0
        for distance in sorted(self.distances):
            seen += self.distances[distance]
            if seen >= hits:
                return distance
        return 0 if hits <= 0 else None


def curve(keys: Sequence[Hashable], one_in: int = 1) -> Curve:
    n = len(keys)
    tree = [0] * (n + 1)

    def add(position: int, value: int) -> None:
        position += 1
        while position <= n:
            tree[position] += value
            position += position & -position

    def before(position: int) -> int:
        seen = 0
        while position > 0:
            seen += tree[position]
            position -= position & -position
        return seen

    last: dict[Hashable, int] = {}
    distances: Counter[int] = Counter()
    first = 0
    for position, key in enumerate(keys):
        previous = last.get(key)
        if previous is None:
            first += 1
        else:
            # Keys whose last access lies after the previous one of this key, and the key itself.
            distances[(before(position) - before(previous + 1) + 1) * one_in] += 1
            add(previous, -1)
        add(position, 1)
        last[key] = position
    return Curve(n, first, dict(distances))

"""What each package is about: the mean vector of its memories, kept for the packages used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np

from hubscope import instrumentation as hub
from reference_hub.embedding import DIMENSIONS, Vector

CAPACITY = 256  # more than there are packages in most environments
SMALL_CAPACITY = 6


class ProfileCache:
    """Least recently used goes first. `load(package)` gives the vectors that a missing profile is made of."""

    def __init__(self, capacity: int, load: Callable[[str], list[Vector]]) -> None:
        self.capacity = capacity
        self._load = load
        self._profiles: OrderedDict[str, Vector] = OrderedDict()
        self._lock = Lock()
        self._watch = hub.watch_cache("package_profiles", capacity=capacity, tier="hot")

    def __len__(self) -> int:
        return len(self._profiles)

    def profile(self, package: str) -> Vector:
        """The mean vector of a package's memories, of length 1 (or 0 if it has none); shape (1536,), float32."""
        with self._lock:
            known = self._profiles.get(package)
            if known is not None:
                self._profiles.move_to_end(package)
        if known is not None:
            self._watch.hit(package)
            return known
        with self._watch.miss(package):
            profile = _mean(self._load(package))
        with self._lock:
            self._profiles[package] = profile
            self._profiles.move_to_end(package)
            while len(self._profiles) > self.capacity:
                self._profiles.popitem(last=False)
        return profile


def _mean(vectors: list[Vector]) -> Vector:
    if not vectors:
        return np.zeros(DIMENSIONS, dtype=np.float32)
    mean: Vector = np.stack(vectors).mean(axis=0, dtype=np.float32)
    length = float(np.linalg.norm(mean))
    return mean / np.float32(length) if length else mean

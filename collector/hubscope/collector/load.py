"""How much of its time the worker works, so that what can wait is done when there is less to do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

WINDOW_S: Final = 5.0  # a burst shorter than that puts nothing off
# At 150,000 spans a second segments are worked on for 0.6 of the time, and merging what they made as well would take
# more than two cores have; at 100,000 there is room for both.
HIGH: Final = 0.4


class Load:
    """The share of recent time that was spent within `working`, older time counting ever less. One thread works, any
    asks."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._share, self._at_s = 0.0, now_s()

    @contextmanager
    def working(self) -> Iterator[None]:
        begun_s = self._now_s()
        try:
            yield
        finally:
            ended_s = self._now_s()
            before = self._share * math.exp(-(ended_s - self._at_s) / WINDOW_S)
            self._share, self._at_s = before + 1.0 - math.exp(-(ended_s - begun_s) / WINDOW_S), ended_s

    def share(self) -> float:
        """Between 0 and 1. Work that has not ended yet counts when it has."""
        return self._share * math.exp(-(self._now_s() - self._at_s) / WINDOW_S)

    def is_high(self) -> bool:
        return self.share() > HIGH

"""The thread of a destination beside the lake: it reads by itself, behind the worker, and never holds anybody up.

What waits for a destination is bounded. Its bytes at every look, also while it takes something, because a destination
that is slow fills the log as one that is down does; its age when the destination has just failed, so that a clock
that jumps drops nothing that would have been taken. The oldest goes first, is counted with the reason, and said.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, Protocol

from hubscope.collector.delivery import MAX_WAIT_S, Delivery
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.sources import Segment, Source, Waiting
from hubscope.errors import LakeError, RetryableError
from hubscope.exporters.base import Bound, Destination

POLL_S: Final = 0.05
FIRST_PAUSE_S: Final = 0.1
_TELL_AGAIN_S: Final = 60.0
REFUSED_RECENTLY_S: Final = 300.0  # so long a refusal stands in `/healthz`, for who looks every few minutes

_log = logging.getLogger(__name__)


class Clock(Protocol):
    """Time, and waiting in it. Tests pass one in which an hour is over at once."""

    def now_s(self) -> float: ...
    def wait(self, event: threading.Event, timeout_s: float) -> bool: ...


class RealClock:
    """The system's."""

    def now_s(self) -> float:
        return time.time()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)


def back_off_s(failures: int, retry_after_s: float) -> float:
    """How long to wait after so many failures in a row: doubled each time up to MAX_WAIT_S, between half of it and all
    of it by chance, so that many senders do not come back at once; never shorter than the destination asks for.
    """
    pause_s = min(MAX_WAIT_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))
    return max(pause_s * random.uniform(0.5, 1.0), retry_after_s)


class _Refused:
    """Says what a destination refuses for good: when it begins, when the reason changes, and its number each minute."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._counted = 0
        self._noted_s = self._told_s = -math.inf
        self._told = ""

    def recent(self) -> str:
        """What was refused last, as long as that says something of now."""
        is_recent = time.monotonic() - self._noted_s < REFUSED_RECENTLY_S
        return self._destination.last_refusal if is_recent else ""

    def tell(self) -> None:
        """To be called after each try."""
        refused, rejected = self._destination.dropped, self._destination.rejected_items
        if refused + rejected == self._counted:
            return
        self._counted, now_s = refused + rejected, time.monotonic()
        self._noted_s = now_s
        reason = self._destination.last_refusal
        if reason == self._told and now_s - self._told_s < _TELL_AGAIN_S:
            return
        self._told, self._told_s = reason, now_s
        _log.warning(
            "%s: it refused %d %s and %d items of others for good so far, which are dropped: %s",
            self._destination.name,
            refused,
            "rows" if self._destination.takes == "rows" else "requests",
            rejected,
            reason,
            extra={"about": self._destination.name},
        )


class DestinationDelivery(Delivery):
    """Delivers the segments of `source` in their order. `processed()` is the last one that may be read."""

    def __init__(
        self,
        exporter: Destination,
        cursor: Cursor,
        stop: threading.Event,
        draining: threading.Event,  # set: nothing more will be processed
        source: Source,
        processed: Callable[[], int],
        bound: Bound,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(exporter, cursor, stop, draining)
        self.passed_over: Counter[str] = Counter()  # by reason, in the exporter's own unit
        self._destination = exporter
        self._source = source
        self._processed = processed
        self._bound = bound
        self._clock = clock or RealClock()
        self._waiting = Waiting(source, cursor.segment)
        self._told_s = 0.0
        self._refused = _Refused(exporter)

    def status(self) -> dict[str, Any]:
        refused = self._destination.dropped
        return {
            **super().status(),
            "takes": self._destination.takes,
            "sent": self._destination.sent,
            "dropped": refused + self.passed_over.total(),
            "dropped_by_reason": {**({"refused": refused} if refused else {}), **self.passed_over},
            "rejected_items": self._destination.rejected_items,
            "waiting_bytes": self._waiting.size_bytes,
            "bound_bytes": self._bound.size_bytes,
            "last_error": self.last_error or self._refused.recent(),
            "is_failing": bool(self.last_error),
            "last_refusal": self._destination.last_refusal,
        }

    def run(self) -> None:
        with self._noting_a_crash(), closing(self.exporter):
            while not self._stopping.is_set():
                draining = self._draining.is_set()
                self._keep_within_bytes()
                segment = self._waiting.first(self._processed())
                if segment is not None:
                    if not self._deliver(segment):
                        return
                elif draining:
                    return
                else:
                    self._stopping.wait(POLL_S)

    def _deliver(self, segment: int) -> bool:
        """False: stopped, and the segment keeps its place."""
        try:
            found = self._source.read(segment)
        except LakeError as error:
            self._failed(error)
            self._pass_over(segment, "unreadable", 0)
            self._advance(segment)
            return True
        failures = 0
        while True:
            try:
                self.exporter.export(found.batch, found.records)
                self._refused.tell()
            except RetryableError as error:
                self._refused.tell()
                failures += 1
                self._failed(error)
                if self._draining.is_set() or not self._wait(back_off_s(failures, error.retry_after_s)):
                    return False  # it keeps its place in the log; a stop need not wait for a destination that is down
                self._keep_within_bytes(found)
                if self.cursor.segment >= segment:
                    return True
                if self._clock.now_s() - self._waiting.first_written_s() > self._bound.age_s:
                    self._pass_over(segment, "too old", found.size - self._destination.sent_of(segment))
                    self._advance(segment)
                    return True
                continue
            self.last_error, self.failing_since_s = "", 0.0
            if found.withheld:
                self.passed_over["unreadable"] += found.withheld
            self._waiting.done()
            self._advance(segment)
            return True

    def _wait(self, pause_s: float) -> bool:
        """Whether it may go on. A drain ends the pause: a destination asks for up to five minutes."""
        until_s = self._clock.now_s() + pause_s
        while (left_s := until_s - self._clock.now_s()) > 0 and not self._draining.is_set():
            if left_s > pause_s or self._clock.wait(self._stopping, min(left_s, 0.2)):
                break  # stopped, or the clock went back
        return not self._stopping.is_set()

    def _keep_within_bytes(self, current: Segment | None = None) -> None:
        """Pass over the oldest until what waits is within the bound. `current` is the one that is being tried."""
        self._waiting.look()
        last = 0
        while self._waiting.size_bytes > self._bound.size_bytes:
            segment = self._waiting.first(self._processed())
            if segment is None:
                break
            if current is not None and current.batch.segment == segment:
                count = current.size - self._destination.sent_of(segment)
            else:
                count = self._count(segment)
            self._pass_over(segment, "too much", count)
            last = segment
        if last:
            self._advance(last)

    def _count(self, segment: int) -> int:
        try:
            return self._source.read(segment).size
        except LakeError:
            return 0

    def _pass_over(self, segment: int, reason: str, count: int) -> None:
        self.passed_over[reason] += count
        self._waiting.done()
        if time.monotonic() > self._told_s + _TELL_AGAIN_S or not self._told_s:
            self._told_s = time.monotonic()
            _log.warning(
                "%s: %d %s passed over so far, now of segment %d (%s): at most %d MiB and %g h wait for it",
                self.exporter.name,
                self.passed_over.total(),
                "rows" if self._destination.takes == "rows" else "requests",
                segment,
                reason,
                self._bound.size_bytes >> 20,
                self._bound.age_s / 3600,
            )

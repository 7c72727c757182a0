"""One thread for each exporter, so that a destination that is down delays nobody else. Here the lake's."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from hubscope.collector.log.cursors import Cursor
from hubscope.errors import HubscopeError, PermanentError, RetryableError
from hubscope.exporters.base import Exporter
from hubscope.exporters.disk import DiskFullError
from hubscope.processors.batch import Batch

MAX_WAIT_S: Final = 5.0  # between two tries: a destination that is back is found within this
# Decoded batches waiting for the lake: one being decoded while one is written is all that two cores can do.
LAKE_QUEUE: Final = 1

_log = logging.getLogger(__name__)


class Delivery(threading.Thread):
    """What all have in common: tries with growing pauses, the cursor, and what is told of it."""

    def __init__(self, exporter: Exporter, cursor: Cursor, stop: threading.Event, draining: threading.Event) -> None:
        super().__init__(name=f"exporter-{exporter.name}", daemon=True)
        self.exporter = exporter
        self.cursor = cursor
        self.sent = 0  # requests
        self.failed = 0  # tries that did not succeed
        self.last_error = ""
        self.dropped = 0  # requests that were given up
        self.crashed: BaseException | None = None
        self._stopping = stop  # set: give up what cannot be had now
        self._draining = draining

    def status(self) -> dict[str, Any]:
        """What worker.json says of this exporter."""
        return {
            "cursor": self.cursor.segment,
            "sent": self.sent,
            "failed": self.failed,
            "last_error": self.last_error,
            "dropped": self.dropped,
        }

    @contextmanager
    def _noting_a_crash(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - the worker ends itself on it; a thread cannot
            self.crashed = error
            _log.exception("the exporter %s ended", self.exporter.name)

    def _try(self, batch: Batch) -> bool:
        """Whether the exporter has the segment. False: stopped. PermanentError passes through."""
        pause_s = 0.1
        while True:
            try:
                self.exporter.export(batch, ())
            except RetryableError as error:
                self._failed(error)
                if isinstance(error, DiskFullError) and self._draining.is_set():
                    self._stopping.set()  # nothing can be drained: the log keeps it, and the stop need not wait
                if self._pause(max(pause_s, error.retry_after_s), error):
                    return False
                pause_s = min(pause_s * 2, MAX_WAIT_S)
                continue
            self.last_error = ""
            return True

    def _pause(self, pause_s: float, error: RetryableError) -> bool:
        """Whether the worker was stopped meanwhile. On a full disk the pause ends where the drain begins."""
        if not isinstance(error, DiskFullError):
            return self._stopping.wait(pause_s)
        deadline_s = time.monotonic() + pause_s
        while not self._stopping.wait(0.1) and not self._draining.is_set() and time.monotonic() < deadline_s:
            pass
        return self._stopping.is_set()

    def _advance(self, segment: int) -> None:
        """Note durably that the exporter has the segment; on a full disk once there is room again, or not at all."""
        while True:
            try:
                self.cursor.advance(segment)
                return
            except OSError as error:
                self._failed(error)
                # Without the note the next worker gets the segment once more, and a stop need not wait for room.
                if self._draining.is_set() or self._stopping.wait(1.0):
                    return

    def _failed(self, error: Exception) -> None:
        self.failed += 1
        text = error.message if isinstance(error, HubscopeError) else f"{type(error).__name__}: {error}"
        if text != self.last_error:
            _log.warning("%s: %s", self.exporter.name, error)
        self.last_error = text


class LakeDelivery(Delivery):
    """Takes batches from the decoder, in order, and never gives one up while it is not stopped.

    `without_guilty(batch, reason)` is asked where the lake refuses a batch: it sets requests aside and gives the rest.
    """

    def __init__(
        self,
        exporter: Exporter,
        cursor: Cursor,
        stop: threading.Event,
        without_guilty: Callable[[Batch, str], Batch],
        draining: threading.Event,  # set: finish what is sealed, then end
    ) -> None:
        super().__init__(exporter, cursor, stop, draining)
        self.waiting: queue.Queue[tuple[Batch, int] | None] = queue.Queue(LAKE_QUEUE)
        self._without_guilty = without_guilty

    def run(self) -> None:
        with self._noting_a_crash():
            while (item := self.waiting.get()) is not None:
                batch, record_count = item
                if not self._deliver(batch):
                    return
                self.sent += record_count
                self._advance(batch.segment)

    def _deliver(self, batch: Batch) -> bool:
        for _ in range(2):
            try:
                return self._try(batch)
            except PermanentError as error:  # the table is read anew for the second try
                self._failed(error)
        rest = self._without_guilty(batch, self.last_error)
        try:
            return self._try(rest)
        except PermanentError as error:
            self._failed(error)
            empty = self._without_guilty(rest, self.last_error)  # the second time: everything is set aside
            return self._try(empty)

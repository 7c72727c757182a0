"""One thread for each exporter, so that one that is down delays nobody else: what all of them have in common."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from hubscope.collector.log.cursors import Cursor
from hubscope.errors import HubscopeError, RetryableError
from hubscope.exporters.base import Exporter
from hubscope.exporters.disk import DiskFullError
from hubscope.processors.batch import Batch

TELL_AGAIN_S: Final = 60.0
MAX_WAIT_S: Final = 5.0  # between two tries: a destination that is back is found within this

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
        self._failure_told_s = 0.0  # when its failing was last said, of the monotonic clock
        self.failing_since_s = 0.0  # of the monotonic clock; 0 while it works
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
        return self._until_it_works(lambda: self.exporter.export(batch, ()))

    def _until_it_works(self, do: Callable[[], None]) -> bool:
        """Whether it did, again and again while it may. False: stopped."""
        pause_s = 0.1
        while True:
            try:
                do()
            except RetryableError as error:
                self._failed(error)
                if isinstance(error, DiskFullError) and self._draining.is_set():
                    self._stopping.set()  # nothing can be drained: the log keeps it, and the stop need not wait
                if self._pause(max(pause_s, error.retry_after_s), error):
                    return False
                pause_s = min(pause_s * 2, MAX_WAIT_S)
                continue
            self.last_error, self.failing_since_s = "", 0.0
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
        self.failing_since_s = self.failing_since_s or time.monotonic()
        text = error.message if isinstance(error, HubscopeError) else f"{type(error).__name__}: {error}"
        now_s = time.monotonic()
        if text != self.last_error:
            _log.warning("%s: %s", self.exporter.name, error, extra={"about": self.exporter.name})
            self._failure_told_s = now_s
        elif now_s - self._failure_told_s >= TELL_AGAIN_S:
            minutes = (now_s - self.failing_since_s) / 60
            _log.warning(
                "%s: for %.0f min, %d tries so far: %s",
                *(self.exporter.name, minutes, self.failed, text),
                extra={"about": self.exporter.name},
            )
            self._failure_told_s = now_s
        self.last_error = text

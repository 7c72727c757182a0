"""What is processed and not in the lake yet: in memory while the lake keeps up, on the disk while it is away.

A lake that is away for an hour must not hold up those who have no part in it, and what is processed need not be
processed again. So when the queue is full and the lake is away, the rows of everything in it are kept on the disk
(`kept_rows`), `cursors/@processed` says up to where, and from then on only marks are handed over. Where the lake keeps
up, nothing is written.

What always holds: every segment above the lake's cursor and up to `@processed` is kept, so that a worker that starts
anew goes on behind it, with the processors as they were then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from hubscope.collector.kept_rows import KeptRows
from hubscope.collector.log.cursors import Cursor
from hubscope.processors.batch import Batch

# Decoded batches: one that is written and one that waits, while a third is decoded, is all that two cores can do.
IN_MEMORY: Final = 2
# So many marks are no backlog any more: the next batch waits for room in memory, for as long as one takes to write.
NEARLY_DONE: Final = 1


@dataclass(slots=True)
class Handed:
    """A processed segment. `batch` None: its rows are read from the disk."""

    segment: int
    batch: Batch | None
    request_count: int = 0
    set_aside: Collection[int] = ()
    kept_bytes: int = 0  # of its file; 0 where it is in memory only


class LakeQueue:
    """From the worker's thread (`hand_over`, `close`) to the lake's (`first`, `done`), in order."""

    def __init__(
        self, kept: KeptRows, processed: Cursor, written: Cursor, sealed: Collection[int], limit_bytes: int
    ) -> None:
        """`sealed` are the log's segments: one that was processed and whose rows are gone is found by it.

        Beyond `limit_bytes` of rows no more go to the disk: they wait in the log, which refuses when it is full.
        """
        self._kept = kept
        self._on_disk = processed
        self._written = written
        waiting = {*kept.segments(), *sealed}
        left = sorted(number for number in waiting if written.segment < number <= processed.segment)
        self._items = deque(Handed(number, None, kept_bytes=kept.size_bytes(number)) for number in left)
        self._marks = len(self._items)
        self._mark_bytes = sum(item.kept_bytes for item in self._items)
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self._closed = False

    @property
    def on_disk(self) -> int:
        """The last segment that the log's replay need not bring."""
        return self._on_disk.segment

    @property
    def first_left(self) -> int | None:
        """The first segment that waits on the disk from a former life; asked before anything is handed over."""
        return self._items[0].segment if self._items else None

    def waiting(self) -> tuple[int, int]:
        """How many segments wait on the disk, and the bytes of their rows."""
        with self._changed:
            return self._marks, self._mark_bytes

    def hand_over(self, item: Handed, is_away: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it was taken: False where the lake is at work and has no room within `timeout_s`.

        Raises OSError where it has to go to the disk, which does not take it.
        """
        with self._changed:
            if len(self._items) >= IN_MEMORY and not self._goes_to_disk(is_away):
                self._changed.wait_for(lambda: len(self._items) < IN_MEMORY, timeout_s)
            if len(self._items) < IN_MEMORY:
                self._items.append(item)
                self._changed.notify_all()
                return True
            if not self._goes_to_disk(is_away):
                return False
            before = list(self._items)
        for one in (*before, item):
            if one.batch is not None and not one.kept_bytes and one.segment > self._written.segment:
                one.kept_bytes = self._kept.keep(one.batch, one.request_count, one.set_aside)
        self._on_disk.advance(item.segment)
        with self._changed:
            item.batch = None
            self._items.append(item)
            self._marks += 1
            self._mark_bytes += item.kept_bytes
            self._changed.notify_all()
        return True

    def _goes_to_disk(self, is_away: Callable[[], bool]) -> bool:
        return self._mark_bytes < self._limit_bytes and (self._marks > NEARLY_DONE or is_away())

    def close(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def first(self, stop: threading.Event) -> Handed | None:
        """The oldest segment, which stays until it is `done`; None at the end, or when stopped."""
        with self._changed:
            while not self._items and not self._closed and not stop.is_set():
                self._changed.wait(0.2)
            return self._items[0] if self._items and not stop.is_set() else None

    def done(self) -> None:
        """The lake has the oldest."""
        with self._changed:
            item = self._items.popleft()
            if item.batch is None:
                self._marks -= 1
                self._mark_bytes -= item.kept_bytes
            self._changed.notify_all()

"""The lake's thread: it takes processed segments in their order, and never gives one up while it is not stopped."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from hubscope.collector.delivery import Delivery
from hubscope.collector.kept_rows import Kept, KeptRows
from hubscope.collector.lake_queue import Handed, LakeQueue
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.suspects import Suspects
from hubscope.collector.writer_identity import WriterIdentity
from hubscope.errors import LakeError, PermanentError
from hubscope.exporters.lake import LakeExporter
from hubscope.processors.batch import Batch

AWAY_S: Final = 1.0  # a store that stumbles for a moment costs no disk
HANGS_S: Final = 5.0  # a store that answers nothing does not fail either; the largest segment is written in 2 s

SILENT_S: Final = 10.0  # from then on it is told: /healthz says degraded, though no try has failed


class LakeDelivery(Delivery):
    """Writes what stands in `queue`. What the lake refuses, or what killed a worker, `suspects` finds."""

    def __init__(
        self,
        exporter: LakeExporter,
        cursor: Cursor,
        stop: threading.Event,
        draining: threading.Event,  # set: finish what is sealed, then end
        queue: LakeQueue,
        kept: KeptRows,
        suspects: Suspects,
        identity: WriterIdentity,
    ) -> None:
        super().__init__(exporter, cursor, stop, draining)
        self._lake = exporter
        self._queue = queue
        self._kept = kept
        self._suspects = suspects
        self._identity = identity
        self._trying_since_s = 0.0  # of the monotonic clock; 0 where nothing is to be done

    def is_away(self) -> bool:
        """Whether the lake has not taken anything for so long that nobody should wait for it."""
        now_s = time.monotonic()
        failing_s, trying_s = self.failing_since_s, self._trying_since_s
        return bool(failing_s and now_s - failing_s >= AWAY_S) or bool(trying_s and now_s - trying_s >= HANGS_S)

    def status(self) -> dict[str, Any]:
        segments, size_bytes = self._queue.waiting()
        said = {**super().status(), "kept_segments": segments, "kept_bytes": size_bytes}
        trying_s = self._trying_since_s
        if not self.last_error and trying_s and time.monotonic() - trying_s >= SILENT_S:
            said["last_error"] = f"{self._lake.lake} has not answered for more than {SILENT_S:g} s"
        return said

    def run(self) -> None:
        with self._noting_a_crash():
            self._trying_since_s = time.monotonic()
            if not self._until_it_works(self._lake.open):
                return
            self._trying_since_s = 0.0
            while (handed := self._queue.first(self._stopping)) is not None:
                self._trying_since_s = time.monotonic()
                if not self._until_it_works(lambda: self._identity.compare(self._lake, self.cursor)):
                    return
                if handed.segment > self.cursor.segment:  # else the lake was found to have it
                    found = self._read(handed)
                    if found is None or not self._deliver(found.batch):
                        return
                    self.sent += found.request_count
                    self._advance(handed.segment)
                self._queue.done()
                self._trying_since_s = 0.0

    def _read(self, handed: Handed) -> Kept | None:
        """The segment's rows; None: stopped. What is damaged on the disk is decoded from the log once more."""
        batch = handed.batch
        if batch is not None:
            return Kept(batch, handed.request_count)
        try:
            found = self._kept.read(handed.segment)
            if not found.has_checksum:
                raise LakeError(f"{self._kept.path(handed.segment)}: has no checksum", "check the disk")
        except LakeError as error:
            return self._suspects.from_the_log(handed.segment, self._kept.path(handed.segment), str(error))
        self._suspects.know(handed.segment, found.set_aside)
        rest = self._suspects.without_killers(found.batch)
        return None if rest is None else found._replace(batch=rest)

    def _deliver(self, batch: Batch) -> bool:
        for _ in range(2):
            try:
                return self._try(batch)
            except PermanentError as error:  # the table is read anew for the second try
                self._failed(error)
        rest = self._suspects.without_guilty(batch, self.last_error)
        if rest is None:
            return False
        try:
            return self._try(rest)
        except PermanentError as error:
            self._failed(error)
            empty = self._suspects.without_guilty(rest, self.last_error)  # the second time: everything is set aside
            return empty is not None and self._try(empty)

"""Where a destination beside the lake reads its segments from: files that wait for it, so that it holds no memory.

A destination takes requests as they arrived (from the log, and what was derived of them) or rows as the processors
left them (`kept_rows`). Each file is one segment, `%016d` and a suffix, and never changes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hubscope.collector.kept_rows import SUFFIX as ROWS_SUFFIX
from hubscope.collector.kept_rows import KeptRows
from hubscope.collector.log.wal import SUFFIX as LOG_SUFFIX
from hubscope.collector.log.wal import Following, Record, segment_number
from hubscope.collector.outgoing import Outgoing
from hubscope.collector.segments import readable_records
from hubscope.errors import LakeError
from hubscope.processors.batch import Batch

_log = logging.getLogger(__name__)


class Segment(NamedTuple):
    """What an exporter is given. `size` is in the exporter's own unit: requests, or rows."""

    batch: Batch
    records: Sequence[Record]
    size: int
    withheld: int = 0  # requests of which it cannot be told any more whether they may leave this machine


class Source(Protocol):
    """The segments' files, and how one is read."""

    @property
    def directory(self) -> Path: ...
    @property
    def suffix(self) -> str: ...
    def read(self, segment: int) -> Segment: ...


class Requests:
    """The log's records as they may leave this machine and, ahead of them, what was derived of them as OTLP."""

    suffix = LOG_SUFFIX

    def __init__(self, wal_dir: Path, state_dir: Path, outgoing: Outgoing) -> None:
        self.directory = wal_dir
        self._state_dir = state_dir
        self._outgoing = outgoing

    def read(self, segment: int) -> Segment:
        arrived = readable_records(self.directory / f"{segment:016d}{LOG_SUFFIX}", self._state_dir, segment)
        withheld = 0
        try:
            records = self._outgoing.records(segment, arrived)
        except LakeError as error:  # better not sent than with what should be out of it
            _log.warning("%s", error)
            records, withheld = self._outgoing.derived(segment), len(arrived)
        received_unix_nano = records[0].received_unix_nano if records else 0
        return Segment(Batch(segment, received_unix_nano), records, len(records), withheld)


class Rows:
    """The rows of each segment as the processors left them."""

    suffix = ROWS_SUFFIX

    def __init__(self, kept: KeptRows) -> None:
        self.directory = kept.directory
        self._kept = kept

    def read(self, segment: int) -> Segment:
        batch = self._kept.read(segment).batch
        rows = sum(table.num_rows for tables in (batch.tables, batch.derived) for table in tables.values())
        return Segment(batch, (), rows)


class Waiting:
    """The segments after a number, in order, with their sizes; each file is looked at once."""

    def __init__(self, source: Source, after: int) -> None:
        self._following = Following(source.directory, source.suffix)
        self._last = after
        self._found: deque[tuple[int, int, float]] = deque()  # segment, bytes, when it was written
        self.size_bytes = 0

    def look(self) -> None:
        """Take notice of what has come."""
        while (path := self._following.next(self._last)) is not None:
            try:
                status = path.stat()
            except FileNotFoundError:
                break
            self._last = segment_number(path)
            self._found.append((self._last, status.st_size, status.st_mtime))
            self.size_bytes += status.st_size

    def first(self, up_to: int) -> int | None:
        """The oldest segment, where it is not above `up_to`."""
        return self._found[0][0] if self._found and self._found[0][0] <= up_to else None

    def first_written_s(self) -> float:
        return self._found[0][2]

    def done(self) -> None:
        """The oldest waits no more."""
        self.size_bytes -= self._found.popleft()[1]

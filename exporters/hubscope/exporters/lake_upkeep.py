"""Keeping the number of the lake's files down: small files of one day are written together, replaced ones removed.

Two sizes, as in a log-structured merge tree, so that a byte is rewritten about twice: files under 4 MiB are merged
into files of 4 MiB, those into files of 128 MiB. Compaction and appends commit optimistically and do not conflict.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import DeltaError

COMMITS_BETWEEN: Final = 64  # looking at the files costs 1 ms; with two commits a second, every half minute
SMALL_BYTES: Final = 4 << 20
LARGE_BYTES: Final = 128 << 20  # what DuckDB and Spark read well: 100 MB to 1 GB
FILES_BEFORE_MERGE: Final = 32
VACUUM_EVERY_S: Final = 600.0
# A reader that took a snapshot may read the files of it for this long after they were replaced.
VACUUM_RETENTION_HOURS: Final = 1

_log = logging.getLogger(__name__)


class Upkeep:
    """Compaction and vacuum after commits, in the thread that commits."""

    def __init__(self, writer: WriterProperties) -> None:
        self._writer = writer
        self._commits: dict[str, int] = {}
        self._vacuumed_s: dict[str, float] = {}

    def after_commit(self, name: str, table: DeltaTable) -> None:
        """Look after one table. A failure is logged and tried again later: the rows are safe without it."""
        self._commits[name] = self._commits.get(name, 0) + 1
        if self._commits[name] % COMMITS_BETWEEN:
            return
        try:
            self._compact(table)
            self._vacuum(name, table)
        except (OSError, DeltaError) as error:
            _log.warning("%s: compaction will be tried again: %s", name, error)

    def _compact(self, table: DeltaTable) -> None:
        files = pa.table(table.get_add_actions(flatten=True))
        sizes, days = files["size_bytes"], files["partition.Date"]
        for upper in (SMALL_BYTES, LARGE_BYTES):
            lower = (
                0 if upper == SMALL_BYTES else SMALL_BYTES // 2
            )  # merged files come out near their target, not above
            chosen = pc.and_(pc.less(sizes, upper), pc.greater_equal(sizes, lower))
            for entry in pc.value_counts(days.filter(chosen)).to_pylist():
                if entry["counts"] >= FILES_BEFORE_MERGE:
                    table.optimize.compact(
                        partition_filters=[("Date", "=", str(entry["values"]))],
                        target_size=upper,
                        max_concurrent_tasks=1,  # the other core is the front's
                        writer_properties=self._writer,
                    )

    def _vacuum(self, name: str, table: DeltaTable) -> None:
        now_s = time.monotonic()
        if now_s - self._vacuumed_s.setdefault(name, now_s) < VACUUM_EVERY_S:
            return
        self._vacuumed_s[name] = now_s
        table.vacuum(VACUUM_RETENTION_HOURS, dry_run=False, enforce_retention_duration=False)

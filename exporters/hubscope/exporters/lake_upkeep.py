"""Keeping the number of the lake's files down: small files of one day are merged into sorted ones.

A thread of its own: a merge of 1.4 million spans takes 6 s, and what arrives meanwhile must be queryable within 2 s.
A merge reads and writes a row group at a time, so its memory does not depend on how much it merges. It is one Delta
commit that removes the old files and adds the new one; appends never conflict with it. Two sizes, as in a
log-structured merge tree, so that a byte is rewritten about twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import RemoveAction

from hubscope.exporters.lake_files import ROW_GROUP_ROWS, Storage, in_order, text_leaves, write_file
from hubscope.lake_schema import PARTITION, SCHEMAS

COMMITS_BETWEEN: Final = 64  # looking at the files costs 1 ms; with two commits a second, every half minute
SMALL_BYTES: Final = 4 << 20
LARGE_BYTES: Final = 128 << 20  # what DuckDB and Spark read well: 100 MB to 1 GB
FILES_BEFORE_MERGE: Final = 32
VACUUM_EVERY_S: Final = 600.0
# A reader that took a snapshot may read the files of it for this long after they were replaced.
VACUUM_RETENTION_HOURS: Final = 1
COMPRESSION_LEVEL: Final = 1
# Sorting holds a row group three times. Of spans this is 75,000 rows; with 122,880, whatever they are, merging a day's
# exponential histograms took 300 MiB.
ROW_GROUP_BYTES: Final = 24 << 20

_log = logging.getLogger(__name__)


class DataFile(NamedTuple):
    """One file of a snapshot."""

    path: str
    size_bytes: int
    rows: int
    day: str
    earliest: Any  # of its rows' times; files without one come first


class Stopped(Exception):
    """The exporter closes: what a merge has written so far is thrown away."""


class Upkeep:
    """Merges and vacuum of one lake's tables. `after_commit` from the thread that commits; the rest is its own."""

    def __init__(self, lake: str, storage_options: Mapping[str, str]) -> None:
        self._lake = lake
        self._storage_options = dict(storage_options)
        self._commits: dict[str, int] = {}
        self._vacuumed_s: dict[str, float] = {}
        self._due: dict[str, None] = {}  # names of tables, in the order they came due
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def after_commit(self, name: str) -> None:
        """Count a commit; every COMMITS_BETWEEN the table is looked at."""
        self._commits[name] = self._commits.get(name, 0) + 1
        if self._commits[name] % COMMITS_BETWEEN:
            return
        with self._changed:
            self._due[name] = None
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lake-upkeep", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Give up a merge that is going on, and end."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def wait(self, timeout_s: float) -> bool:
        """Whether nothing was left to do within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due, timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._stopping.is_set())
                name = next(iter(self._due), None)
            if name is None or self._stopping.is_set():
                return
            try:
                table = DeltaTable(f"{self._lake}/{name}", storage_options=self._storage_options)
                self._merge(name, table)
                self._vacuum(name, table)
            except Stopped:
                return
            except (OSError, DeltaError, pa.ArrowException) as error:  # the rows are safe without it
                _log.warning("%s: compaction will be tried again: %s", name, error)
            with self._changed:
                del self._due[name]
                self._changed.notify_all()

    def _merge(self, name: str, table: DeltaTable) -> None:
        storage = Storage(table.table_uri, self._storage_options)
        for files in merges(files_of(table)):
            merge(name, table, storage, files, self._stopping)

    def _vacuum(self, name: str, table: DeltaTable) -> None:
        now_s = time.monotonic()
        if now_s - self._vacuumed_s.setdefault(name, now_s) < VACUUM_EVERY_S:
            return
        self._vacuumed_s[name] = now_s
        table.vacuum(VACUUM_RETENTION_HOURS, dry_run=False, enforce_retention_duration=False)


def files_of(table: DeltaTable) -> list[DataFile]:
    """The files of a table's snapshot, oldest rows first."""
    actions = pa.table(table.get_add_actions(flatten=True))
    time_column = next((c for c in ("min.Timestamp", "min.TimeUnix") if c in actions.column_names), None)
    earliest = actions[time_column].to_pylist() if time_column else [None] * actions.num_rows
    columns = (actions[c].to_pylist() for c in ("path", "size_bytes", "num_records", f"partition.{PARTITION}"))
    found = [
        DataFile(path, size, rows or 0, str(day), first)
        for path, size, rows, day, first in zip(*columns, earliest, strict=True)
    ]
    return sorted(found, key=lambda file: (file.day, file.earliest is not None, file.earliest, file.path))


def merges(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Which files are to become one: of one day, FILES_BEFORE_MERGE or more of like size, up to LARGE_BYTES."""
    chosen: list[list[DataFile]] = []
    for day in dict.fromkeys(file.day for file in files):
        of_day = [file for file in files if file.day == day]
        small = [file for file in of_day if file.size_bytes < SMALL_BYTES]
        medium = [file for file in of_day if SMALL_BYTES <= file.size_bytes < LARGE_BYTES // 2]
        for alike in (small, medium):
            if len(alike) >= FILES_BEFORE_MERGE:
                chosen += _up_to(LARGE_BYTES, alike)
    return chosen


def _up_to(limit_bytes: int, files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    group: list[DataFile] = []
    size_bytes = 0
    for file in files:
        if group and size_bytes + file.size_bytes > limit_bytes:
            if len(group) > 1:
                yield group
            group, size_bytes = [], 0
        group.append(file)
        size_bytes += file.size_bytes
    if len(group) > 1:
        yield group


def merge(name: str, table: DeltaTable, storage: Storage, files: Sequence[DataFile], stopping: threading.Event) -> None:
    """Replace files of one day by one with the same rows, in one commit. Raises Stopped where `stopping` is set."""
    parts = _row_groups(name, storage, files, stopping)
    added = write_file(storage, name, files[0].day, parts, COMPRESSION_LEVEL, data_change=False)
    removed = [
        RemoveAction(
            path=file.path,
            deletion_timestamp=time.time_ns() // 1_000_000,
            data_change=False,
            partition_values={PARTITION: file.day},
            size=file.size_bytes,
        )
        for file in files
    ]
    try:
        table.create_write_transaction([added, *removed], "append", table.schema(), [PARTITION])
    except CommitFailedError:  # another collector merged the same files; any other error may come after the commit
        storage.discard(unquote(added.path))
        raise
    before = table.version()
    table.update_incremental()
    storage.sync_commits(before + 1, table.version())


def _row_groups(
    name: str, storage: Storage, files: Sequence[DataFile], stopping: threading.Event
) -> Iterator[pa.Table]:
    """The files' rows a row group at a time, sorted within it; files come by time, so groups do nearly as well."""
    waiting: list[pa.Table] = []
    for file in files:
        for part in _read(name, storage, file.path):
            if stopping.is_set():
                raise Stopped
            waiting.append(part)
            if sum(p.num_rows for p in waiting) >= ROW_GROUP_ROWS or sum(p.nbytes for p in waiting) >= ROW_GROUP_BYTES:
                yield _sorted(waiting)
    if waiting:
        yield _sorted(waiting)


def _sorted(parts: list[pa.Table]) -> pa.Table:
    """All the parts' rows in order. Takes them out of the list, so that each copy made on the way is the only one."""
    rows = pa.concat_tables(parts)
    parts.clear()
    rows = rows.unify_dictionaries()
    rows = rows.combine_chunks()
    return in_order(rows)


def _read(name: str, storage: Storage, path: str) -> Iterator[pa.Table]:
    """The row groups of a file in the lake's schema; a column that it was written without is null."""
    with pq.ParquetFile(storage.reading(path), read_dictionary=text_leaves(name)) as file:
        schema = file.schema_arrow
        for index in range(file.num_row_groups):
            rows = file.read_row_group(index, use_threads=False)
            for field in SCHEMAS[name]:
                if field.name != PARTITION and field.name not in schema.names:
                    rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
            yield rows.select([field.name for field in SCHEMAS[name] if field.name != PARTITION])

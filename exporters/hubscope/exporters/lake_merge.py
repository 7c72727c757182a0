"""Which of the lake's files become one, and how: the same rows, sorted, in one Delta commit.

A merge reads and writes a row group at a time, so its memory does not depend on how much it merges. Two sizes, as in a
log-structured merge tree, so that a byte is rewritten about twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from hubscope.exporters.lake_files import ROW_GROUP_ROWS, Storage, in_order, text_leaves, write_file
from hubscope.lake_paths import DataFile, files_of
from hubscope.lake_rollup import merged
from hubscope.lake_schema import PARTITION, ROLLUP, SCHEMAS

SMALL_BYTES: Final = 4 << 20
LARGE_BYTES: Final = 128 << 20  # what DuckDB and Spark read well: 100 MB to 1 GB
FILES_BEFORE_MERGE: Final = 32
COMPRESSION_LEVEL: Final = 1
# Sorting holds a row group three times. Of spans this is 75,000 rows; with 122,880, whatever they are, merging a day's
# exponential histograms took 300 MiB.
ROW_GROUP_BYTES: Final = 24 << 20
UPKEEP_APPLICATION: Final = "hubscope-upkeep"


class Stopped(Exception):
    """The exporter closes: what a merge has written so far is thrown away."""


def merges(files: Sequence[DataFile]) -> list[list[DataFile]]:
    """Which files are to become one: of one day, FILES_BEFORE_MERGE or more of like size, up to LARGE_BYTES."""
    chosen: list[list[DataFile]] = []
    for day in dict.fromkeys(file.day for file in files):
        of_day = [file for file in files if file.day == day and not file.is_cold]
        small = [file for file in of_day if file.size_bytes < SMALL_BYTES]
        medium = [file for file in of_day if SMALL_BYTES <= file.size_bytes < LARGE_BYTES // 2]
        for alike in (small, medium):
            if len(alike) >= FILES_BEFORE_MERGE:
                chosen += [group for group in up_to(LARGE_BYTES, alike) if len(group) > 1]
    return chosen


def up_to(limit_bytes: int, files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """The files in groups of at most that size, and of one file where it alone is larger."""
    group: list[DataFile] = []
    size_bytes = 0
    for file in files:
        if group and size_bytes + file.size_bytes > limit_bytes:
            yield group
            group, size_bytes = [], 0
        group.append(file)
        size_bytes += file.size_bytes
    if group:
        yield group


def merge(name: str, table: DeltaTable, storage: Storage, files: Sequence[DataFile], stopping: threading.Event) -> None:
    """Replace files of one day by one with the same rows, in one commit. Raises Stopped where `stopping` is set."""
    parts = row_groups(name, table, storage, files, stopping)
    replace(
        table, storage, files, [write_file(storage, name, files[0].day, parts, COMPRESSION_LEVEL, data_change=False)]
    )


def replace(
    table: DeltaTable, storage: Storage, files: Sequence[DataFile], added: Sequence[AddAction], *, gone: bool = False
) -> None:
    """One commit that takes files out of the table and puts others in. `gone` says that their rows end with them.

    Raises CommitFailedError, with the added files removed, where another collector's upkeep came first. Delta-rs lets
    two commits remove the same file, and both would add its rows again. So each carries the next number of one
    application, of which the second is refused; and what a later look at the log has shown to be gone is not removed.
    """
    removed = [
        RemoveAction(
            path=file.path,
            deletion_timestamp=time.time_ns() // 1_000_000,
            data_change=gone,
            partition_values={PARTITION: file.day},
            size=file.size_bytes,
        )
        for file in files
    ]
    before = table.version()
    number = (table.transaction_version(UPKEEP_APPLICATION) or 0) + 1
    properties = CommitProperties(app_transactions=[Transaction(UPKEEP_APPLICATION, number)])
    try:
        if not {file.path for file in files} <= {file.path for file in files_of(table)}:
            raise CommitFailedError("another collector has replaced the same files")
        table.create_write_transaction(
            [*added, *removed], "append", table.schema(), [PARTITION], commit_properties=properties
        )
    except CommitFailedError:  # any other error may come after the commit
        for action in added:
            storage.discard(action.path)
        raise
    table.update_incremental()
    storage.sync_commits(before + 1, table.version())


def row_groups(
    name: str,
    table: DeltaTable,
    storage: Storage,
    files: Sequence[DataFile],
    stopping: threading.Event,
) -> Iterator[pa.Table]:
    """The files' rows a row group at a time, sorted within it; files come by time, so groups do nearly as well."""
    waiting: list[pa.Table] = []
    rows = size_bytes = 0
    schema = _schema_of(name, table, storage, files)
    for file in files:
        for part in _read(name, schema, storage, file.path):
            if stopping.is_set():
                raise Stopped
            waiting.append(part)
            rows, size_bytes = rows + part.num_rows, size_bytes + part.nbytes
            if rows >= ROW_GROUP_ROWS or size_bytes >= ROW_GROUP_BYTES:
                yield _joined(name, waiting)
                rows = size_bytes = 0
    if waiting:
        yield _joined(name, waiting)


def _joined(name: str, parts: list[pa.Table]) -> pa.Table:
    """All the parts' rows in order. Takes them out of the list, so that each copy made on the way is the only one.

    The rollup's rows of one series and minute become one, unless a later hubscope has columns there that may not agree.
    """
    rows = pa.concat_tables(parts)
    parts.clear()
    rows = rows.unify_dictionaries()
    rows = rows.combine_chunks()
    if name == ROLLUP and set(rows.column_names) < set(SCHEMAS[ROLLUP].names):
        rows = merged(rows)
    return in_order(rows)


def _schema_of(name: str, table: DeltaTable, storage: Storage, files: Sequence[DataFile]) -> pa.Schema:
    """The columns of the merged file, ours and those that a later hubscope has added, in the types they are read in."""
    known = [field for field in SCHEMAS[name] if field.name != PARTITION]
    later = [field for field in pa.schema(table.schema().to_arrow()) if field.name not in SCHEMAS[name].names]
    wanted = {field.name: field for field in (*known, *later)}
    missing = dict.fromkeys(wanted)
    for file in files:  # nearly always the first has them all
        with _open(name, storage, file.path) as opened:
            for field in opened.schema_arrow:
                if field.name in missing:
                    del missing[field.name]
                    wanted[field.name] = field.with_metadata(None)
        if not missing:
            break
    return pa.schema(list(wanted.values()))


def _open(name: str, storage: Storage, path: str) -> pq.ParquetFile:
    """A file whose texts are read as dictionaries, which a file need not have all columns for."""
    source = storage.reading(path)
    metadata = pq.read_metadata(source)
    leaves = {metadata.schema.column(index).path for index in range(len(metadata.schema))}
    return pq.ParquetFile(source, metadata=metadata, read_dictionary=[p for p in text_leaves(name) if p in leaves])


def _read(name: str, schema: pa.Schema, storage: Storage, path: str) -> Iterator[pa.Table]:
    """The row groups of a file in that schema; a column that it was written without is null."""
    with _open(name, storage, path) as file:
        present = set(file.schema_arrow.names)
        for index in range(file.num_row_groups):
            rows = file.read_row_group(index, use_threads=False)
            for field in schema:
                if field.name not in present:
                    rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
            yield rows.select(schema.names)

"""The lake: one Delta table a signal, each segment appended exactly once.

A segment's number is the version of a Delta application transaction, committed with its rows. deltalake does not refuse
a version that is there already, so the exporter asks first. The application's name holds the writer's id: several
collectors may append to one lake, each with numbers of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, DeltaProtocolError, SchemaMismatchError, TableNotFoundError

from hubscope.errors import LakeError, PermanentError, RetryableError
from hubscope.exporters.base import RecordLike
from hubscope.exporters.lake_upkeep import Upkeep
from hubscope.lake_schema import LAKE_VERSION, LAKE_VERSION_KEY, PARTITION, SCHEMAS, check_version
from hubscope.processors.batch import Batch

COLLECTOR_APPLICATION: Final = "hubscope-collector"
# Below this nothing is appended: a commit of seven tables with a checkpoint stays under 20 MiB; a compaction does not.
MIN_FREE_BYTES: Final = 64 << 20

# Level 1: 52 B a span where level 3 gave 54, and a tenth faster. Compaction may press harder, once.
_WRITER: Final = WriterProperties(compression="ZSTD", compression_level=1)
_CONFIGURATION: Final = {
    LAKE_VERSION_KEY: str(LAKE_VERSION),
    # Two commits a second: a checkpoint every 100 (50 s), and log entries before it go after an hour. Without this the
    # log keeps 30 days, 5 million files.
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 hours",
    "delta.deletedFileRetentionDuration": "interval 1 days",
}
# Columns whose minimum and maximum stand in the log, for readers to skip files by. All 40 would be ten times more.
_STATISTICS: Final = ("Timestamp", "TimestampUnixNano", "TimeUnix", "TimeUnixNano", "ServiceName", "ServiceVersion")


class DiskFullError(RetryableError):
    """The lake's disk has no room: nothing can be written until somebody makes some."""


class LakeExporter:
    """Appends batches to the lake at a folder or an object-store URL.

    Raises LakeError from the constructor for a lake that a newer hubscope wrote, or that cannot be read or made.
    """

    name = "lake"

    def __init__(
        self,
        lake: str,
        application: str = COLLECTOR_APPLICATION,
        storage_options: Mapping[str, str] | None = None,
        upkeep: bool = True,
    ) -> None:
        self.lake = lake.rstrip("/") if "://" in lake else str(Path(lake).absolute())
        self.application = application
        self.rows: dict[str, int] = dict.fromkeys(SCHEMAS, 0)  # written by this exporter
        self._storage_options = dict(storage_options or {})
        self._tables: dict[str, DeltaTable] = {}
        self._versions: dict[str, int] = {}  # of each open table; asking costs a read of the log, 10 ms
        self._upkeep = Upkeep(_WRITER) if upkeep else None
        try:
            for name in SCHEMAS:
                self._open(name)
        except RetryableError as error:
            raise LakeError(error.message, error.remedy) from error

    def export(self, batch: Batch, records: Sequence[RecordLike] = ()) -> None:
        """Append what arrived and what was derived; a table that has the segment already is left as it is.

        Raises RetryableError for a full disk or an unreachable store, PermanentError for rows that Delta refuses.
        """
        self._check_room(sum(rows.nbytes for name in SCHEMAS for rows in batch.rows(name)))
        for name in SCHEMAS:
            rows = list(batch.rows(name))
            if rows:
                self._append(name, pa.concat_tables(rows), batch.segment)

    def version(self, name: str) -> int:
        """The last segment that the table has of this application; 0 for none."""
        table = self._open(name)
        if name not in self._versions:
            self._versions[name] = table.transaction_version(self.application) or 0
        return self._versions[name]

    def close(self) -> None:
        self._tables.clear()
        self._versions.clear()

    def _check_room(self, size_bytes: int) -> None:
        """Raise DiskFullError before delta-rs meets a full disk: it panics there, with a backtrace on stderr."""
        if "://" in self.lake:
            return
        needed_bytes = max(MIN_FREE_BYTES, 3 * size_bytes)
        try:
            free_bytes = shutil.disk_usage(self.lake).free
        except OSError:
            return  # the folder is gone: the write says so
        if free_bytes < needed_bytes:
            raise DiskFullError(
                f"{self.lake}: No space left to write: {free_bytes >> 20} MiB free, {needed_bytes >> 20} MiB needed",
                "free some disk space; what was accepted waits in the log",
            )

    def _append(self, name: str, rows: pa.Table, segment: int) -> None:
        try:
            if self.version(name) >= segment:
                return
            table = self._open(name)
            write_deltalake(
                table,
                rows,
                mode="append",
                writer_properties=_WRITER,
                commit_properties=CommitProperties(app_transactions=[Transaction(self.application, segment)]),
            )
            _make_durable(table)
        except (SchemaMismatchError, DeltaProtocolError, pa.ArrowException, ValueError, TypeError) as error:
            self._forget(name)
            raise PermanentError(f"{self.lake}/{name}: the rows were refused: {_first_line(error)}") from error
        except (OSError, DeltaError) as error:
            self._forget(name)  # what it knows may be out of date, also that this very commit succeeded
            raise self._unavailable(name, error) from error
        self._versions[name] = segment
        self.rows[name] += rows.num_rows
        if self._upkeep:
            self._upkeep.after_commit(name, table)

    def _forget(self, name: str) -> None:
        self._tables.pop(name, None)
        self._versions.pop(name, None)

    def _open(self, name: str) -> DeltaTable:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = self._open_or_create(name)
        return table

    def _open_or_create(self, name: str) -> DeltaTable:
        url = f"{self.lake}/{name}"
        try:
            try:
                table = DeltaTable(url, storage_options=self._storage_options)
            except TableNotFoundError:
                if "://" not in url:
                    Path(url).mkdir(parents=True, exist_ok=True)
                statistics = ",".join(c for c in _STATISTICS if c in SCHEMAS[name].names)
                table = DeltaTable.create(
                    url,
                    SCHEMAS[name],
                    mode="ignore",
                    partition_by=[PARTITION],
                    configuration={**_CONFIGURATION, "delta.dataSkippingStatsColumns": statistics},
                    raise_if_key_not_exists=False,  # our own key is none of Delta's
                    storage_options=self._storage_options,
                )
        except (OSError, DeltaError, ValueError) as error:
            raise self._unavailable(name, error) from error
        check_version(table.metadata().configuration.get(LAKE_VERSION_KEY), self.lake)
        missing = set(SCHEMAS[name].names) - {field.name for field in table.schema().fields}
        if missing:
            raise LakeError(
                f"{url}: a Delta table without the columns {', '.join(sorted(missing))}",
                "give --lake a folder of its own; this table was not made by hubscope",
            )
        return table

    def _unavailable(self, name: str, error: Exception) -> RetryableError:
        text = _first_line(error)
        full = "No space left" in text or "os error 28" in text
        remedy = "free some disk space" if full else "is the folder or the object store there, and may it be written?"
        return RetryableError(f"{self.lake}/{name}: {text}", remedy)


def _make_durable(table: DeltaTable) -> None:
    """Force the last commit of a local table to the disk: delta-rs leaves it to the operating system.

    The log's segment is deleted after this, so a loss of power must not take the rows with it.
    """
    root = _local_root(table.table_uri)
    if root is None:
        return
    commit = root / "_delta_log" / f"{table.version():020d}.json"
    folders = {commit.parent}
    for line in commit.read_text("utf-8").splitlines():
        added = json.loads(line).get("add")
        if added:
            path = root / unquote(added["path"])
            _sync(path)
            folders.add(path.parent)
    _sync(commit)
    for folder in folders:
        _sync(folder)


def _local_root(uri: str) -> Path | None:
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def _sync(path: Path) -> None:
    if os.name == "nt":  # no such call on folders; NTFS journals its names
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:500]

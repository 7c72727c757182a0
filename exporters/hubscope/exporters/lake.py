"""The lake: one Delta table a signal, each segment appended exactly once.

A segment's number is the version of a Delta application transaction, committed with its rows. deltalake does not refuse
a version that is there already, so the exporter asks first. The application's name holds the writer's id: several
collectors may append to one lake, each with numbers of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)
from deltalake.transaction import AddAction

from hubscope.errors import HubscopeError, LakeError, PermanentError, RetryableError
from hubscope.exporters import disk, lake_commit
from hubscope.exporters.base import RecordLike
from hubscope.exporters.disk import DiskFullError
from hubscope.exporters.lake_files import STATISTICS, Storage, write_rows
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.lake_upgrade import upgrade
from hubscope.exporters.lake_upkeep import Upkeep
from hubscope.lake_log import check_log
from hubscope.lake_schema import LAKE_VERSION, LAKE_VERSION_KEY, PARTITION, SCHEMAS
from hubscope.processors.batch import Batch

COLLECTOR_APPLICATION: Final = "hubscope-collector"
COMMIT_ATTEMPTS: Final = 10  # of writers that commit at the same moment one wins; ten in a row is no accident
RETRY_TIMEOUT: Final = "5s"  # of an object store's client; it tries ten times, and we for ever
COMPRESSION_LEVEL: Final = 1  # level 9 takes 0.9 us a span more and saves nothing: what is left is random
_CHECKPOINT_EVERY: Final = 20  # commits
_CONFIGURATION: Final = {
    LAKE_VERSION_KEY: str(LAKE_VERSION),
    # A commit reads what was committed since the last checkpoint: with one every 100 it took 11 ms, with 20 it takes 5.
    "delta.checkpointInterval": str(_CHECKPOINT_EVERY),
    # Two commits a second: without this the log keeps 30 days, 5 million files; an hour are 7,200.
    "delta.logRetentionDuration": "interval 10 minutes",
}
_log = logging.getLogger(__name__)
_DROPPED_KEPT: Final = "delta.deletedFileRetentionDuration"


# What is raised for rows that cannot be taken.
_REFUSALS: Final = (SchemaMismatchError, DeltaProtocolError, pa.ArrowException, ValueError, TypeError)


class Claim(Protocol):
    """Whose the numbers of an application are: another process may use the same name by mistake."""

    owner: int  # committed with every segment; 0 for nothing
    first: int  # from this number on a segment that is there already is ours only if its owner is

    def renew(self) -> str:
        """Another name to go on under. Raises RetryableError."""


class OthersNumberError(Exception):
    """The table has a segment of this number that another process wrote under the same name."""


class LakeExporter:
    """Appends batches to the lake at a folder or an object-store URL.

    Raises LakeError from the constructor for a lake that a newer hubscope wrote, or that cannot be read or made. With
    `is_opened_later` only for a path that is no folder: `open` says the rest, and a lake that is away may come back.
    """

    name = "lake"

    def __init__(
        self,
        lake: str,
        application: str = COLLECTOR_APPLICATION,
        storage_options: Mapping[str, str] | None = None,
        upkeep: bool = True,
        policy: LakePolicy | None = None,  # what it keeps, and where; None keeps everything
        is_opened_later: bool = False,
        is_busy: Callable[[], bool] = lambda: False,  # whether merges had better wait
        claim: Claim | None = None,
    ) -> None:
        self.lake = lake.rstrip("/") if "://" in lake else str(Path(lake).absolute())
        self.application = application
        self._temporary = lake_commit.temporary_name()
        self.rows: dict[str, int] = dict.fromkeys(SCHEMAS, 0)  # written by this exporter
        self._storage_options = dict(storage_options or {})
        if "://" in self.lake:  # a try that hangs ends after its 30 s, not after three minutes: it is made again anyway
            self._storage_options.setdefault("retry_timeout", RETRY_TIMEOUT)
        self._tables: dict[str, DeltaTable] = {}
        self._versions: dict[str, int] = {}  # of each open table; asking costs a read of the log, 10 ms
        self._stores: dict[str, Storage] = {}
        self._newest: dict[str, int] = {}  # the log's version after this exporter's last commit, which the table lacks
        self._policy = policy
        self._claim = claim
        self._upkeep: Upkeep | None = None
        if is_opened_later and "://" not in self.lake and Path(self.lake).exists() and not Path(self.lake).is_dir():
            raise LakeError(f"{self.lake} is no folder", "name another lake with --lake")
        try:
            if not is_opened_later:
                self.open()
        except DiskFullError:
            pass  # the first export says so, or finds room again and makes what is missing
        except RetryableError as error:
            raise LakeError(error.message, error.remedy) from error
        if upkeep:
            self._upkeep = Upkeep(self.lake, self._storage_options, policy, is_busy=is_busy)

    def open(self) -> None:
        """Open every table, and make those that are missing. Raises as `export` does, and LakeError for a lake that
        a newer hubscope wrote."""
        for name in SCHEMAS:
            self._open(name)

    def export(self, batch: Batch, records: Sequence[RecordLike] = ()) -> None:
        """Append what arrived and what was derived; a table that has the segment already is left as it is.

        Raises RetryableError for a full disk or an unreachable store, PermanentError for rows that Delta refuses.
        """
        self.append(batch, Transaction(self.application, batch.segment))

    def append(self, batch: Batch, transaction: Transaction, *more: Transaction) -> None:
        """`export` under a transaction of the caller's; `more` are committed with it. Raises as `export` does, and
        RetryableError where one of `more` was given to a table since: it may not be given twice."""
        is_own = transaction.app_id == self.application
        self._check_room(sum(rows.nbytes for name in SCHEMAS for rows in batch.rows(name)))
        for name in SCHEMAS:
            rows = list(batch.rows(name))
            if not rows:
                continue
            first = Transaction(self.application, transaction.version) if is_own else transaction
            try:
                self._append(name, pa.concat_tables(rows), batch.received_unix_nano, (first, *more))
            except OthersNumberError:
                assert self._claim is not None
                self.application = self._claim.renew()
                self._versions.clear()
                first = Transaction(self.application, transaction.version)
                self._append(name, pa.concat_tables(rows), batch.received_unix_nano, (first, *more))

    def version(self, name: str) -> int:
        """The last segment that the table has of this application; 0 for none."""
        if name not in self._versions:
            self._versions[name] = self._last(name, self.application)
        return self._versions[name]

    def versions(self, application: str) -> set[int]:
        """The last transactions of any application, one a table; those that have none are left out."""
        return {version for name in SCHEMAS if (version := self._last(name, application))}

    def transactions(self, application: str) -> list[tuple[int, int]]:
        """(last transaction, its owner) of any application, one a table; an owner of 0 is none."""
        return [(self._last(name, application), self._last(name, _owner_of(application))) for name in SCHEMAS]

    def has(self, name: str, application: str) -> bool:
        """Whether the table has a transaction of that application."""
        return self._last(name, application) > 0

    def await_upkeep(self, timeout_s: float) -> bool:
        """Whether the merges that are due were done within `timeout_s`."""
        return self._upkeep is None or self._upkeep.wait(timeout_s)

    def upkeep_status(self) -> dict[str, Any]:
        """What was dropped and why, whether the disk is low, and the tables' sizes (`Upkeep.status`)."""
        return self._upkeep.status() if self._upkeep else {}

    def close(self, timeout_s: float | None = None) -> None:
        """Let go of the tables; a merge that is going on is given up, within `timeout_s` if the lake is away."""
        if self._upkeep:
            self._upkeep.close(timeout_s)
        self._tables.clear()
        self._newest.clear()
        self._versions.clear()

    def _check_room(self, size_bytes: int) -> None:
        """Raise DiskFullError while there is still room for the log's commits and for other programs' files."""
        needed_bytes, free_bytes = max(disk.MIN_FREE_BYTES, 3 * size_bytes), disk.free_bytes(self.lake)
        if free_bytes < needed_bytes:
            raise DiskFullError(
                f"{self.lake}: No space left to write: {free_bytes >> 20} MiB free, {needed_bytes >> 20} MiB needed"
            )

    def _append(
        self, name: str, rows: pa.Table, received_unix_nano: int, transactions: tuple[Transaction, ...]
    ) -> None:
        first = transactions[0]
        is_own = first.app_id == self.application
        if not rows.schema.equals(SCHEMAS[name]):
            wrong = sorted(field.name for field in set(rows.schema) ^ set(SCHEMAS[name])) or ["the order of columns"]
            raise PermanentError(f"{self.lake}/{name}: the rows were refused: not the lake's schema: {wrong[:5]}")
        if (self.version(name) if is_own else self._last(name, first.app_id)) >= first.version:
            self._check_owner(self._read_log(name), first)
            return
        table, storage = self._open(name), self._stores[name]
        with self._told(name, _REFUSALS):
            if storage.root is None:
                # deltalake's file system keeps the interpreter to itself while it waits for a store: one that hangs
                # would stop every thread of the worker. This request, 0.7 ms of a commit's 16, lets the others run.
                table.update_incremental()
                if self._has(table, first):
                    return
            actions = write_rows(storage, name, rows, received_unix_nano, COMPRESSION_LEVEL)
            if storage.root is None or not self._commit_locally(name, actions, transactions):
                before = table.version()
                self._commit(table, actions, transactions)
                # deltalake leaves the table where it stood before the commit, and the next one would then be refused
                # for meeting this one's application transaction.
                table.update_incremental()
                storage.sync_commits(before + 1, table.version())
        if is_own:
            self._versions[name] = first.version
        self.rows[name] += rows.num_rows
        if self._upkeep:
            self._upkeep.after_commit(name)

    def _commit_locally(self, name: str, added: Sequence[AddAction], transactions: tuple[Transaction, ...]) -> bool:
        """Name the files in the log of a table in a local folder; False where its file system cannot do it so."""
        root = self._stores[name].root
        assert root is not None
        log = root / "_delta_log"
        for attempt in range(COMMIT_ATTEMPTS):
            table = self._open(name)
            try:
                version = self._newest.get(name, table.version()) + 1
                version = lake_commit.append(log, version, added, self._with_owner(transactions), self._temporary)
            except lake_commit.NoLinksError:
                self._read_log(name)
                return False
            except lake_commit.BehindError:
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise CommitFailedError(f"{log}: others commit all the time") from None
                self._tables.pop(name)
                self._newest.pop(name, None)
                table = self._open(name)  # anew: another hubscope may have changed its columns
                if self._is_made(table, transactions):
                    return True
                continue
            self._newest[name] = version
            if (version + 1) % _CHECKPOINT_EVERY == 0:
                self._checkpoint(name)
            return True
        raise AssertionError

    def _checkpoint(self, name: str) -> None:
        """What delta-rs does itself after every so many commits of its own. The rows are committed without it."""
        table = self._read_log(name)
        try:
            table.create_checkpoint()
            table.cleanup_metadata()
        except BaseException as error:
            if not isinstance(error, OSError | DeltaError) and not disk.is_panic(error):
                raise
            _log.warning("%s/%s: no checkpoint: %s", self.lake, name, disk.one_line(error))

    def _read_log(self, name: str) -> DeltaTable:
        """The table with the commits that were made past it."""
        table = self._open(name)
        if self._newest.pop(name, None) is not None:
            table.update_incremental()
        return table

    def _commit(self, table: DeltaTable, added: Sequence[AddAction], transactions: tuple[Transaction, ...]) -> None:
        """Name the files in the log. Another writer that came first is no obstacle: appends do not touch each other.

        Files of a commit that failed stay, for it may have been made all the same; vacuum takes what no commit names.
        """
        properties = CommitProperties(app_transactions=self._with_owner(transactions))
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                table.create_write_transaction(
                    list(added), "append", table.schema(), [PARTITION], commit_properties=properties
                )
                return
            except CommitFailedError:
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
                table.update_incremental()
                if self._is_made(table, transactions):
                    return

    def _with_owner(self, transactions: tuple[Transaction, ...]) -> list[Transaction]:
        application = transactions[0].app_id
        if self._claim is None or not self._claim.owner or application != self.application:
            return list(transactions)
        return [*transactions, Transaction(_owner_of(application), self._claim.owner)]

    def _is_made(self, table: DeltaTable, transactions: tuple[Transaction, ...]) -> bool:
        """Whether the table has the commit, which failed only to say so. Raises CommitFailedError where another writer
        made one of the others, and OthersNumberError as `_check_owner` does."""
        first, *more = transactions
        if self._has(table, first):
            return True
        if any(table.transaction_version(one.app_id) is not None for one in more):
            raise CommitFailedError("another writer committed the same")
        return False

    def _has(self, table: DeltaTable, first: Transaction) -> bool:
        """Whether the table has the transaction. Raises OthersNumberError as `_check_owner` does."""
        if (table.transaction_version(first.app_id) or 0) < first.version:
            return False
        self._check_owner(table, first)
        return True

    def _check_owner(self, table: DeltaTable, first: Transaction) -> None:
        """Raise OthersNumberError where a number that is there already is not one that we gave."""
        claim = self._claim
        if claim is None or first.app_id != self.application or first.version < claim.first:
            return
        if (table.transaction_version(_owner_of(first.app_id)) or 0) != claim.owner:
            raise OthersNumberError

    def _last(self, name: str, application: str) -> int:
        with self._told(name):
            return self._read_log(name).transaction_version(application) or 0

    def _open(self, name: str) -> DeltaTable:
        table = self._tables.get(name)
        if table is None:
            with self._told(name):
                table = self._open_or_create(name)
                self._stores[name] = Storage(table.table_uri, self._storage_options)
            self._tables[name] = table
        return table

    def _open_or_create(self, name: str) -> DeltaTable:
        url = f"{self.lake}/{name}"
        try:
            check_log(self.lake, name)
        except LakeError as error:  # rows that wait for it are kept until it is mended
            raise RetryableError(error.message, error.remedy) from error
        statistics = ",".join(c for c in STATISTICS if c in SCHEMAS[name].names)
        # What was dropped stands in every checkpoint until vacuum has come by once more: at full load 9,000 files.
        minutes = math.ceil((self._policy or LakePolicy()).reader_grace_s / 60) + 15
        dropped_kept = {_DROPPED_KEPT: f"interval {minutes} minutes"}
        configuration = {**_CONFIGURATION, "delta.dataSkippingStatsColumns": statistics}
        try:
            table = DeltaTable(url, storage_options=self._storage_options)
            if "://" not in url:
                lake_commit.remove_left(Path(url) / "_delta_log")
            if self._policy is not None:  # an import leaves it as the collector's policy wants it
                configuration |= dropped_kept
        except TableNotFoundError:
            if "://" not in url:
                Path(url).mkdir(parents=True, exist_ok=True)
            table = DeltaTable.create(
                url,
                SCHEMAS[name],
                mode="ignore",
                partition_by=[PARTITION],
                configuration={**configuration, **dropped_kept},
                raise_if_key_not_exists=False,  # our own key is none of Delta's
                storage_options=self._storage_options,
            )
        return upgrade(table, name, url, self.lake, configuration)

    @contextmanager
    def _told(self, name: str, refusals: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """What delta-rs and Arrow raise inside, as our errors. `refusals`, and panics, are the rows' own fault.

        The table is read anew afterwards: what is known of it may be out of date, also that this very commit succeeded.
        """
        try:
            yield
        except (HubscopeError, OthersNumberError):
            raise
        except BaseException as error:
            self._tables.pop(name, None)
            self._newest.pop(name, None)
            self._versions.pop(name, None)
            message = f"{self.lake}/{name}: {disk.one_line(error)}"
            if disk.is_full(error, self.lake):
                raise DiskFullError(message) from error
            if isinstance(error, refusals) or (refusals and disk.is_panic(error)):
                raise PermanentError(f"{message} (the rows were refused)") from error
            if isinstance(error, OSError | DeltaError | ValueError) or disk.is_panic(error):
                remedy = "is the folder or the object store there, and may it be written?"
                raise RetryableError(message, remedy) from error
            raise


def _owner_of(application: str) -> str:
    """The application whose transaction says who wrote the last of another's."""
    return f"{application}/owner"

"""What the lake needs as time goes: merges, the cold tier, retention, room on the disk, vacuum.

A thread of its own: a merge of 1.4 million spans takes 6 s, and what arrives meanwhile must be queryable within 2 s.
Everything it does to a table is a Delta commit that takes files out and puts files in; appends never conflict with it.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from hubscope.exporters import disk, lake_cold
from hubscope.exporters.lake_clock import TrustedClock
from hubscope.exporters.lake_files import Storage
from hubscope.exporters.lake_merge import Stopped, merge, merges, replace
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.lake_retention import Snapshot, day_in_order, day_of, days_beyond, past, sizes_of_days
from hubscope.exporters.lake_vacuum import Vacuum
from hubscope.lake_paths import DataFile, cold_base, files_of, is_elsewhere, split
from hubscope.lake_schema import ROLLUP, SCHEMAS

COMMITS_BETWEEN: Final = 64  # looking at the files costs 1 ms; with two commits a second, every half minute
# While the collector is busy merges wait, up to so many files of a table: four minutes at full load. Merging takes 2.8
# us a span beside the 10 that all else takes. A reader opens 300 files in 0.1 s.
FILES_UNDER_LOAD: Final = 768
KEEP_EVERY_S: Final = 60.0
ROOM_EVERY_S: Final = 5.0  # a disk fills at 100 MB/s: the watermark is 512 MiB
VACUUM_EVERY_S: Final = 600.0
AGE: Final = "age"
SIZE: Final = "size"
DISK: Final = "disk"
# Beside what a merge writes: the log's commits of every table must still go in.
_SPARE_BYTES: Final = 64 << 20
_ROLLUPS: Final = frozenset({ROLLUP})  # of an age of their own

_log = logging.getLogger(__name__)


class Upkeep:
    """The upkeep of one lake. `after_commit` and `status` from any thread; the rest is the thread's own.

    Without a policy (an import) only merges and vacuum are done, every COMMITS_BETWEEN commits. While `is_busy` merges
    are put off.
    """

    def __init__(
        self,
        lake: str,
        storage_options: Mapping[str, str],
        policy: LakePolicy | None = None,
        now_unix_s: Callable[[], float] = time.time,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._lake = lake
        self._storage_options = dict(storage_options)
        self._policy = policy or LakePolicy(min_free_disk_bytes=0)
        self._now_unix_s = now_unix_s
        self._trusted_clock = TrustedClock(now_unix_s)
        self._is_busy = is_busy
        self._commits: dict[str, int] = {}
        self._tables: dict[str, DeltaTable] = {}
        self._storages: dict[str, Storage] = {}
        self._vacuum = Vacuum(lake)
        self._vacuumed_s: dict[str, float] = {}
        self._kept_s = 0.0
        self._due: dict[str, None] = {}  # names of tables, in the order they came due
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._dropped: Counter[tuple[str, str]] = Counter()  # (reason, what) since this process began
        self._last_drop = ""
        self._low_disk = ""
        self._failing: dict[str, str] = {}  # what cannot be done -> why, as it was said
        self._sizes: dict[str, dict[str, int]] = {}
        if policy is not None:
            self._start()

    def after_commit(self, name: str) -> None:
        """Count a commit; every COMMITS_BETWEEN the table is looked at."""
        self._commits[name] = self._commits.get(name, 0) + 1
        if self._commits[name] % COMMITS_BETWEEN:
            return
        with self._changed:
            self._due[name] = None
            self._changed.notify()
            if self._thread is None:
                self._start()

    def close(self, timeout_s: float | None = None) -> None:
        """Give up what is going on, and end; after `timeout_s` also where a store that does not answer is asked."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Whether nothing was left to do within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due, timeout_s)

    def status(self) -> dict[str, Any]:
        """What was dropped since the process began and why, whether the disk is low, each table's size, and what
        fails for a reason that nobody thought of."""
        reasons = {reason for reason, _ in self._dropped}
        return {
            "tables": dict(self._sizes),
            "dropped": {r: {what: self._dropped[r, what] for what in ("rows", "size_bytes")} for r in sorted(reasons)},
            "last_drop": self._last_drop,
            "low_disk": self._low_disk,
            "failing": next(iter(dict(self._failing).values()), ""),
        }

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lake-upkeep", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._stopping.is_set(), ROOM_EVERY_S)
                name = next(iter(self._due), None)
            if self._stopping.is_set():
                return
            try:
                self._guarded("room", self.make_room)
                if name is not None:
                    self._guarded(name, lambda name=name: self.merge(name))  # type: ignore[misc]
                if time.monotonic() - self._kept_s >= KEEP_EVERY_S:
                    self._kept_s = time.monotonic()
                    self._guarded("keep", self.keep)
            except Stopped:
                return
            with self._changed:
                if name is not None:
                    self._due.pop(name, None)
                self._changed.notify_all()

    def _guarded(self, what: str, do: Callable[[], None]) -> None:
        """Whatever fails is tried again later: the rows are safe without it, and a lake without upkeep is not."""
        try:
            do()
            self._failing.pop(what, None)
        except Stopped:
            raise
        except CommitFailedError as error:
            self._tables.clear()
            _log.info("%s: another collector's upkeep came first: %s", what, error)
        except (OSError, DeltaError, pa.ArrowException) as error:
            self._tables.clear()
            _log.warning("%s: upkeep will be tried again: %s", what, disk.one_line(error))
        except BaseException as error:
            if not isinstance(error, Exception) and not disk.is_panic(error):
                raise
            self._tables.clear()
            said = f"the lake's upkeep ({what}) fails: {type(error).__name__}: {disk.one_line(error)}"
            if self._failing.get(what) != said:
                self._failing[what] = said
                _log.error("%s; it is tried again, and no row is lost; see `hubscope doctor`", said, exc_info=error)

    def merge(self, name: str) -> None:
        """Merge the table's small files where there are many, and vacuum it when that is due."""
        self._merge(name)
        self._clean(name, self._policy.reader_grace_s)

    def _merge(self, name: str) -> None:
        table = self._open(name)
        if table is None:
            return
        files = files_of(table)
        for group in merges(files):
            if self._is_busy() and len(files) <= FILES_UNDER_LOAD:
                return
            if self._has_room(group):
                merge(name, table, self._storage(name, table), group, self._stopping)
                files = files_of(table)

    def keep(self) -> None:
        """Retention by age and size, then the cold tier, vacuum, and what `status` says of the tables."""
        policy = self._policy
        if policy.retention_s or policy.rollup_retention_s or policy.max_size_bytes:
            self._guarded("retention", self._retain)
        if policy.cold_after_s:
            now_unix_s = self._now_unix_s()
            before = day_of(now_unix_s - policy.cold_after_s)
            for name in SCHEMAS:
                self._guarded(name, lambda name=name: self._cool(name, before, now_unix_s))  # type: ignore[misc]
        for name in SCHEMAS:  # also those of few commits, which do not come due by their number
            self._guarded(name, lambda name=name: self.merge(name))  # type: ignore[misc]
        self._guarded("sizes", self._measure)

    def _retain(self) -> None:
        policy, snapshot = self._policy, self._snapshot()
        written_unix_ms = (file.written_unix_ms for files in snapshot.values() for file in files)
        now_unix_s = self._trusted_clock(max(written_unix_ms, default=0) / 1000)
        for name in SCHEMAS:
            age_s = policy.rollup_retention_s if name in _ROLLUPS else policy.retention_s
            table = self._open(name) if age_s else None
            files = past(files_of(table), now_unix_s, age_s) if table is not None else []
            if table is not None and files:
                self._drop(name, table, files, AGE)
        if policy.max_size_bytes:
            snapshot = self._snapshot()
            today = day_of(now_unix_s)
            for day in days_beyond(snapshot, _others(), policy.max_size_bytes, today):
                self._drop_day(snapshot, day, SIZE, today)

    def _cool(self, name: str, before_day: str, now_unix_s: float) -> None:
        table = self._open(name)
        if table is None:
            return
        base = cold_base(self._policy.cold_url, name, str(table.metadata().id))
        for files in lake_cold.due(files_of(table), before_day, int(now_unix_s * 1000)):
            if base or self._has_room(files):
                lake_cold.move(name, table, self._storage(name, table), files, base, self._stopping)

    def make_room(self) -> None:
        """Where the disk is nearly full: first what only readers without a lease are waited for, then the oldest days.

        Nothing is dropped where all that may go would not be enough: then it is not the lake that fills the disk.
        """
        wanted_bytes = self._policy.min_free_disk_bytes
        free_bytes = self._free_bytes()
        if not wanted_bytes or free_bytes is None or free_bytes >= wanted_bytes:
            self._low_disk = ""
            return
        for name in SCHEMAS:
            self._clean(name, 0.0, now=True)
        free_bytes = self._free_bytes() or 0
        snapshot = self._snapshot()
        today = day_of(self._now_unix_s())
        sizes = sizes_of_days(snapshot, _others(), today, local=True)
        days = sorted(sizes)[:-1]
        if free_bytes < wanted_bytes and free_bytes + sum(sizes[day] for day in days) < wanted_bytes:
            said = f"{free_bytes >> 20} MiB left on the lake's disk; dropping all days but the newest frees too little"
        elif free_bytes < wanted_bytes:
            said = f"the lake's disk had {free_bytes >> 20} MiB left: the oldest days were dropped"
            for day in days:
                if free_bytes >= wanted_bytes:
                    break
                if sizes[day]:
                    self._drop_day(snapshot, day, DISK, today)
                    for name in SCHEMAS:
                        self._clean(name, 0.0, now=True)
                    free_bytes = self._free_bytes() or 0
        else:
            said = "the lake's disk is nearly full; files that were replaced made room"
        if said != self._low_disk:
            _log.warning("%s", said)
        self._low_disk = said

    def _drop_day(self, snapshot: Snapshot, day: str, reason: str, today: str) -> None:
        for name in _others():
            files = [file for file in snapshot.get(name, ()) if day_in_order(file, today) == day]
            table = self._open(name) if files else None
            if table is not None:
                still = {file.path for file in files_of(table)}
                self._drop(name, table, [file for file in files if file.path in still], reason)

    def _drop(self, name: str, table: DeltaTable, files: list[DataFile], reason: str) -> None:
        if not files:
            return
        replace(table, self._storage(name, table), files, [], gone=True)
        rows, size_bytes = sum(file.rows for file in files), sum(file.size_bytes for file in files)
        self._dropped[reason, "rows"] += rows
        self._dropped[reason, "size_bytes"] += size_bytes
        days = sorted({file.day for file in files})
        span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        why = {AGE: "past its retention", SIZE: "over the lake's size", DISK: "the disk is nearly full"}[reason]
        self._last_drop = f"{name} of {span}: {rows:,} rows, {size_bytes / 2**20:.1f} MiB ({why})"
        _log.warning("dropped %s", self._last_drop)

    def _clean(self, name: str, grace_s: float, *, now: bool = False) -> None:
        now_s = time.monotonic()
        # The first time a minute after the start: many a collector lives no ten.
        first_s = now_s - VACUUM_EVERY_S + min(KEEP_EVERY_S, VACUUM_EVERY_S)
        if not now and now_s - self._vacuumed_s.setdefault(name, first_s) < VACUUM_EVERY_S:
            return
        self._vacuumed_s[name] = now_s
        table = self._open(name)
        if table is None:
            return
        bases = {split(file.path)[0] for file in files_of(table) if is_elsewhere(file.path)}
        if self._policy.cold_url:
            bases.add(cold_base(self._policy.cold_url, name, str(table.metadata().id)))
        self._vacuum(name, table, self._storage(name, table), sorted(bases), grace_s)

    def _measure(self) -> None:
        sizes: dict[str, dict[str, int]] = {}
        for name, files in self._snapshot().items():
            cold = [file for file in files if file.is_cold]
            sizes[name] = {
                "files": len(files),
                "size_bytes": sum(file.size_bytes for file in files),
                "cold_size_bytes": sum(file.size_bytes for file in cold),
            }
        self._sizes = sizes

    def _snapshot(self) -> dict[str, list[DataFile]]:
        tables = {name: self._open(name) for name in SCHEMAS}
        return {name: files_of(table) for name, table in tables.items() if table is not None}

    def _open(self, name: str) -> DeltaTable | None:
        """The table at its newest version."""
        table = self._tables.get(name)
        if table is not None:
            table.update_incremental()
            return table
        try:
            table = self._tables[name] = DeltaTable(f"{self._lake}/{name}", storage_options=self._storage_options)
        except TableNotFoundError:
            return None
        return table

    def _storage(self, name: str, table: DeltaTable) -> Storage:
        if name not in self._storages:
            self._storages[name] = Storage(table.table_uri, self._storage_options)
        return self._storages[name]

    def _has_room(self, files: Iterable[DataFile]) -> bool:
        """Whether the disk takes a copy of the files, and the logs' commits after it."""
        free_bytes = self._free_bytes()
        needed_bytes = sum(file.size_bytes for file in files) + _SPARE_BYTES + self._policy.min_free_disk_bytes
        return free_bytes is None or free_bytes > needed_bytes

    def _free_bytes(self) -> int | None:
        if "://" in self._lake or not Path(self._lake).is_dir():
            return None
        return shutil.disk_usage(self._lake).free


def _others() -> list[str]:
    return [name for name in SCHEMAS if name not in _ROLLUPS]

"""The lake's Parquet files: how rows are laid out in one, and what the Delta log is told of it.

Written by pyarrow: delta-rs' own writer took 4.3 us a span where this takes 1.1, for 21 B a span instead of 25. Only
the log is delta-rs'.
"""

from __future__ import annotations

import datetime
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction

from hubscope.lake_paths import is_elsewhere, layout_of, local_path, local_root, split
from hubscope.lake_schema import PARTITION, SCHEMAS

# DuckDB reads a row group a thread, 60 vectors of 2,048 rows being what it writes itself; 40 MB of spans in memory.
ROW_GROUP_ROWS: Final = 122_880
# Columns whose minimum and maximum stand in the log, for readers to skip files by. All 45 would be ten times more.
STATISTICS: Final = ("Timestamp", "TimestampUnixNano", "TimeUnix", "TimeUnixNano", "ServiceName", "ServiceVersion")
# Every value differs: as differences they take 3.5 B where a dictionary that gives up takes 5.2.
_AS_DIFFERENCES: Final = frozenset(
    {"Timestamp", "TimestampUnixNano", "TimeUnix", "TimeUnixNano", "StartTimeUnix", "StartTimeUnixNano", "Duration"}
    | {"ObservedTimestampUnixNano"}
)
_RANDOM: Final = frozenset({"SpanId"})
# A trace by its id opens the row groups whose filter knows it: of ten million spans one or two, not all 82.
_LOOKED_UP: Final = "TraceId"
_FALSE_POSITIVES: Final = 0.01  # 10 bits an id
_NO_TIME_DAY: Final = datetime.date(1970, 1, 1)
MAX_DAYS: Final = 64  # in one commit; an import of two months of history still has a file a day
_MAX_STATISTIC_BYTES: Final = 256

_SORTED_BY: Final = ("ServiceName", "MetricName", "TimestampUnixNano", "TimeUnixNano")


class Listed(NamedTuple):
    """A file that is there, whether a log names it or not."""

    path: str  # as a log names it
    size_bytes: int
    written_unix_s: float  # 0.0 where the store does not say


class Storage:
    """Where one table's files are: a local folder, whose files can be made durable, or an object store.

    Paths are those of the table's log, not percent-encoded: below the table's folder, or a whole URL for a file that
    stands elsewhere.
    """

    def __init__(self, table_uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = local_root(table_uri)
        self._storage_options = dict(storage_options or {})
        self._store: pafs.FileSystem | None = None
        self._elsewhere: dict[str, Storage] = {}
        if self.root is None:
            self._store = pafs.PyFileSystem(DeltaStorageHandler(table_uri, self._storage_options))

    @contextmanager
    def writing(self, path: str) -> Iterator[Any]:
        """A file to write; on leaving it is whole and, in a local folder, on the disk. Gone where the block raises."""
        storage, below = self._at(path)
        try:
            if storage.root is None:
                assert storage._store is not None
                with storage._store.open_output_stream(below) as stream:
                    yield stream
                return
            place = storage.root / below
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            sync_folder(place.parent)
        except BaseException:
            self.discard(path)
            raise

    def reading(self, path: str) -> Any:
        """A file of the table to read at random."""
        storage, below = self._at(path)
        if storage.root is None:
            assert storage._store is not None
            return storage._store.open_input_file(below)
        return pa.memory_map(str(storage.root / below))

    def size_bytes(self, path: str) -> int:
        storage, below = self._at(path)
        if storage.root is None:
            assert storage._store is not None
            return int(storage._store.get_file_info(below).size)
        return (storage.root / below).stat().st_size

    def discard(self, path: str) -> bool:
        """Remove a file that no commit names, and whether it is gone. Vacuum takes one that cannot be removed now."""
        storage, below = self._at(path)
        try:
            if storage.root is None:
                assert storage._store is not None
                storage._store.delete_file(below)
            else:
                (storage.root / below).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def listing(self, base: str = "") -> list[Listed]:
        """The Parquet files of the table's folder, or of the folder `base` elsewhere."""
        storage = self._folder(base) if base else self
        prefix = f"{base}/" if base else ""
        if storage.root is not None:
            found = []
            for folder in storage.root.glob(f"{PARTITION}=*"):
                for place in folder.glob("*.parquet"):
                    with suppress(FileNotFoundError):
                        stat = place.stat()
                        path = f"{prefix}{folder.name}/{place.name}"
                        found.append(Listed(path, stat.st_size, stat.st_mtime))
            return found
        assert storage._store is not None
        infos = storage._store.get_file_info(pafs.FileSelector("", allow_not_found=True, recursive=True))
        return [
            Listed(f"{prefix}{info.path}", int(info.size or 0), (info.mtime_ns or 0) / 1e9)
            for info in infos
            if info.path.startswith(f"{PARTITION}=") and info.path.endswith(".parquet")
        ]

    def _at(self, path: str) -> tuple[Storage, str]:
        if not is_elsewhere(path):
            return self, path
        base, below = split(path)
        return self._folder(base), below

    def _folder(self, base: str) -> Storage:
        if base not in self._elsewhere:
            folder = local_path(base)
            self._elsewhere[base] = Storage(base if folder is None else str(folder), self._storage_options)
        return self._elsewhere[base]

    def sync_commits(self, first: int, last: int) -> None:
        """Force commits of a local table to the disk: delta-rs leaves them to the operating system.

        The log's segment is deleted after this, so a loss of power must not take the rows with it. What is gone of them
        already stands in a checkpoint.
        """
        if self.root is None:
            return
        log = self.root / "_delta_log"
        for version in range(first, last + 1):
            with suppress(FileNotFoundError):
                sync_folder(log / f"{version:020d}.json")
        sync_folder(log)


def write_rows(
    storage: Storage, name: str, rows: pa.Table, received_unix_nano: int, compression_level: int
) -> list[AddAction]:
    """Write rows of the lake's table `name`, one file a day of theirs, ready to be committed.

    Of more than MAX_DAYS days those with the fewest rows are filed under the day they were received: a sender with a
    broken clock could else make a file a span. So are rows without a time, whose `Date` is that of time 0: a retention
    would else drop them at once. Readers go by the rows' times; their `Date` only says where to look.
    """
    actions: list[AddAction] = []
    days = pc.unique(rows[PARTITION]).to_pylist()
    if _NO_TIME_DAY in days:
        timed = pc.not_equal(rows[PARTITION], pa.scalar(0, pa.int32()).cast(pa.date32()))
        rows = _received_unless(timed, rows, received_unix_nano)
        days = pc.unique(rows[PARTITION]).to_pylist()
    if len(days) > MAX_DAYS:
        rows = _fewer_days(rows, received_unix_nano)
        days = pc.unique(rows[PARTITION]).to_pylist()
    try:
        for day in days:
            of_day = rows if len(days) == 1 else rows.filter(pc.equal(rows[PARTITION], pa.scalar(day, pa.date32())))
            parts = [of_day.drop_columns([PARTITION])]
            actions.append(write_file(storage, name, day.isoformat(), parts, compression_level))
    except BaseException:
        for action in actions:
            storage.discard(action.path)
        raise
    return actions


def write_file(
    storage: Storage,
    name: str,
    day: str,
    parts: Iterable[pa.Table],
    compression_level: int,
    *,
    folder: str = "",
    prefix: str = "part-",
    data_change: bool = True,
) -> AddAction:
    """Write one file of one day, `parts` one after the other, without the partition column.

    `folder` is where a file goes that does not stand in the table's own. `data_change` False says that the rows stood
    in the table before, in other files.
    """
    remaining = iter(parts)
    first = next(remaining)
    path = f"{PARTITION}={day}/{prefix}{layout_of(name, first.column_names)}-{uuid.uuid4().hex}.zstd.parquet"
    path = f"{folder}/{path}" if folder else path
    statistics = _Statistics()
    layout = _layout(name, first, compression_level)
    with storage.writing(path) as file, pq.ParquetWriter(file, first.schema, **layout) as writer:
        part = first
        del first  # a merge's parts are large: only the one that is written is held
        while part is not None:
            writer.write_table(part, row_group_size=ROW_GROUP_ROWS)
            statistics.add(part)
            part = next(remaining, None)
    return AddAction(
        path=path,
        size=storage.size_bytes(path),
        partition_values={PARTITION: day},
        modification_time=time.time_ns() // 1_000_000,
        data_change=data_change,
        stats=statistics.to_json(),
    )


def _fewer_days(rows: pa.Table, received_unix_nano: int) -> pa.Table:
    counts = pc.value_counts(rows[PARTITION])
    most = pc.select_k_unstable(counts.field("counts"), MAX_DAYS, sort_keys=[("", "descending")])
    return _received_unless(
        pc.is_in(rows[PARTITION], value_set=counts.field("values").take(most)), rows, received_unix_nano
    )


def _received_unless(kept: pa.ChunkedArray, rows: pa.Table, received_unix_nano: int) -> pa.Table:
    """The rows with the day they were received in the place of theirs, but for those that are kept as they are."""
    received = pa.scalar(received_unix_nano // 86_400_000_000_000, pa.int32()).cast(pa.date32())
    index = rows.schema.get_field_index(PARTITION)
    return rows.set_column(index, rows.schema.field(index), pc.if_else(kept, rows[PARTITION], received))


def in_order(rows: pa.Table) -> pa.Table:
    """The rows by service, metric and time: neighbours are alike, which compresses and lets readers skip."""
    keys = [column for column in _SORTED_BY if column in rows.column_names]
    by = rows.select(keys)
    for index, column in enumerate(keys):
        if pa.types.is_dictionary(by.schema.field(column).type):  # Arrow sorts no dictionaries
            by = by.set_column(index, column, by[column].cast(pa.string()))
    return rows.take(pc.sort_indices(by, sort_keys=[(column, "ascending") for column in keys]))


def text_leaves(name: str) -> list[str]:
    """Paths of the text columns inside a file of the table, which are read as dictionaries where memory counts."""
    return [path for path, kind in _leaves_of(name) if pa.types.is_string(kind) and path not in _RANDOM]


def sync_folder(path: Path) -> None:
    """Force a folder's names, or a file, to the disk. Windows has no such call on folders; NTFS journals its names."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _layout(name: str, rows: pa.Table, compression_level: int) -> dict[str, Any]:
    leaves = [path for path, _ in _leaves_of(name)]
    top = [path for path in leaves if "." not in path]
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": compression_level,
        "use_dictionary": [path for path in leaves if path not in _AS_DIFFERENCES and path not in _RANDOM],
        "column_encoding": {path: "DELTA_BINARY_PACKED" for path in top if path in _AS_DIFFERENCES},
        "write_statistics": top,  # nobody filters by the entries of a map
        "store_schema": False,  # it would name Arrow's dictionaries, which only this process knows
        "max_rows_per_page": ROW_GROUP_ROWS,
    }
    if _LOOKED_UP in rows.column_names:
        ids = max(32, len(pc.unique(rows[_LOOKED_UP])))
        options["bloom_filter_options"] = {_LOOKED_UP: {"ndv": ids, "fpp": _FALSE_POSITIVES}}
    return options


def _leaves_of(name: str) -> list[tuple[str, pa.DataType]]:
    return [leaf for field in SCHEMAS[name] if field.name != PARTITION for leaf in _leaves(field.name, field.type)]


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """(path, type) of the columns that Parquet makes of one of Arrow's, by the specification's names."""
    if pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, kind


class _Statistics:
    """What the Delta log says of a file: its rows, and the extremes of the columns that readers skip files by."""

    def __init__(self) -> None:
        self.rows = 0
        self.low: dict[str, Any] = {}
        self.high: dict[str, Any] = {}
        self.nulls: dict[str, int] = {}

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        for column in STATISTICS:
            if column not in rows.column_names:
                continue
            values = rows[column]
            self.nulls[column] = self.nulls.get(column, 0) + values.null_count
            if pa.types.is_dictionary(values.type):
                values = pc.unique(values).cast(pa.string())
            found = pc.min_max(values).as_py()
            if found["min"] is None:
                continue
            self.low[column] = min(found["min"], self.low.get(column, found["min"]))
            self.high[column] = max(found["max"], self.high.get(column, found["max"]))

    def to_json(self) -> str:
        known = [c for c in self.low if not any(_is_long(v) for v in (self.low[c], self.high[c]))]
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {column: _plain(self.low[column]) for column in known},
                "maxValues": {column: _plain(self.high[column]) for column in known},
                "nullCount": self.nulls,
            }
        )


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode("utf-8", "replace")) > _MAX_STATISTIC_BYTES


def _plain(value: Any) -> Any:
    """A value as the Delta protocol writes it into statistics."""
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z") if hasattr(value, "isoformat") else value

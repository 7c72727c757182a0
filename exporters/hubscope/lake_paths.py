"""Where a file of the lake is, from what a table's log calls it: beside the log, or at a URL of its own when cold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from deltalake import DeltaTable

from hubscope.lake_schema import PARTITION, SCHEMAS

# What a cold file's name begins with; others begin with `part-`.
COLD: Final = "cold-"
_LAYOUT: Final = re.compile(r"[a-z]+-([0-9a-f]{8})-")


class DataFile(NamedTuple):
    """One file of a snapshot."""

    path: str  # below the table's folder, or a whole URL; not percent-encoded
    size_bytes: int
    rows: int
    day: str
    earliest: Any  # of its rows' times; files without one come first
    written_unix_ms: int

    @property
    def is_cold(self) -> bool:
        return self.path.rpartition("/")[2].startswith(COLD)

    @property
    def layout(self) -> str:
        """What `layout_of` gave for its columns; '' where its name does not say, as of older versions' files."""
        found = _LAYOUT.match(self.path.rpartition("/")[2])
        return found[1] if found else ""


def layout_of(name: str, columns: Iterable[str]) -> str:
    """A mark of a file's columns, in their order, which stands in its name: readers then open one file to know all.

    Opening each of 300 to compare them took DuckDB 180 ms, at every query anew.
    """
    types = {field.name: str(field.type) for field in SCHEMAS[name]}
    text = "\n".join(f"{column} {types.get(column, '?')}" for column in columns)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def files_of(table: DeltaTable) -> list[DataFile]:
    """The files of a table's snapshot, oldest rows first."""
    actions = pa.table(table.get_add_actions(flatten=True))
    time_column = next((c for c in ("min.Timestamp", "min.TimeUnix") if c in actions.column_names), None)
    earliest = actions[time_column].to_pylist() if time_column else [None] * actions.num_rows
    sizes, rows = actions["size_bytes"].to_pylist(), actions["num_records"].to_pylist()
    written = actions["modification_time"].cast(pa.int64()).to_pylist()
    # A table that somebody else made may have no partitions.
    days = actions[f"partition.{PARTITION}"].to_pylist() if f"partition.{PARTITION}" in actions.column_names else []
    days = days or [""] * actions.num_rows
    found = [
        DataFile(unquote(path), size, count or 0, str(day), first, written_ms or 0)
        for path, size, count, day, first, written_ms in zip(
            actions["path"].to_pylist(), sizes, rows, days, earliest, written, strict=True
        )
    ]
    return sorted(found, key=lambda file: (file.day, file.earliest is not None, file.earliest, file.path))


def local_root(uri: str) -> Path | None:
    """The folder of a local table's URI, None for an object store."""
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def is_elsewhere(path: str) -> bool:
    """Whether a file stands at a URL of its own, not in its table's folder."""
    return "://" in path


def split(path: str) -> tuple[str, str]:
    """(folder of the table's files, path below it) of a file that stands elsewhere."""
    base, _, rest = path.partition(f"/{PARTITION}=")
    return base, f"{PARTITION}={rest}"


def cold_base(cold_url: str, name: str, table_id: str) -> str:
    """What the paths of a table's cold files begin with: '' in the table's own folder, else a URL without a slash.

    `table_id` is the table's in its Delta metadata, which moving a lake does not change, nor writing it from elsewhere.
    With it lakes share a cold folder: what nobody's log names in there is of one table alone, which may remove it.
    """
    if not cold_url:
        return ""
    if "://" not in cold_url:
        cold_url = f"file://{Path(cold_url).absolute()}"
    return f"{cold_url.rstrip('/')}/{name}/{table_id}"


def is_own_base(base: str, table_id: str) -> bool:
    """Whether a folder of cold files is one table's alone: older versions' stand in one for all lakes."""
    return base.endswith(f"/{table_id}")


def local_path(path: str) -> Path | None:
    """The local file behind a URL of a log, not percent-encoded, as paths are; None for an object store's."""
    return Path(path.removeprefix("file://")) if path.startswith("file://") else None


def location(table_uri: str, path: str) -> Path | str:
    """Where a file of the table is: a local path, or a URL of an object store."""
    if is_elsewhere(path):
        return local_path(path) or path
    root = local_root(table_uri)
    return root / path if root is not None else f"{table_uri.rstrip('/')}/{path}"


def names(files: Iterable[DataFile], name: str) -> set[str]:
    """What a lease calls the files of the table."""
    return {f"{name}/{file.path}" for file in files}

"""Which data files of a local lake cannot be read. Looked for only after a query failed: opening a lake costs nothing.

A copy that was cut short, a disk that was full and a file system after a power failure leave such files. DuckDB's word
for them is "No magic bytes found", or of any other kind where a page in the middle was written over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
from deltalake import DeltaTable

from hubscope.errors import LakeError
from hubscope.lake_paths import DataFile, files_of, location
from hubscope.lake_schema import SCHEMAS

# The query's own faults, and ends that somebody asked for: no file is to blame.
_NO_DAMAGE: Final = (
    duckdb.InterruptException,
    duckdb.ProgrammingError,  # syntax, names, values
    duckdb.PermissionException,
    duckdb.OutOfMemoryException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
)


class Damaged(NamedTuple):
    path: Path
    table: str
    what: str  # is wrong with it


@contextlib.contextmanager
def naming_damage(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Makes DuckDB's error a LakeError that names the damaged file; it stays as it is where every file can be read."""
    try:
        yield
    except _NO_DAMAGE as error:
        if not isinstance(error, duckdb.InvalidInputException):  # a ProgrammingError, and what a cut file is called
            raise
        _raise(connection, error)
    except duckdb.Error as error:
        _raise(connection, error)


def _raise(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> None:
    (lake,) = connection.execute("SELECT getvariable('hubscope_lake')").fetchone() or (None,)
    found = damaged(lake) if lake and "://" not in lake else []
    if not found:
        raise error
    first, rest = found[0], f" ({len(found) - 1} more files are damaged)" if found[1:] else ""
    raise LakeError(
        f"a file of table {first.table} of the lake at {lake} cannot be read: {first.path} {first.what}{rest}",
        f"restore it from a backup; or move the table's folder {Path(lake) / first.table} aside: the rest of the lake "
        "can then be read, and `hubscope import` brings the data again where it was kept",
    ) from error


def damaged(lake: str) -> list[Damaged]:
    """Every file of a local lake's newest snapshots that is missing, was cut off, or cannot be read to its end."""
    found = []
    for name in SCHEMAS:
        if not (Path(lake) / name / "_delta_log").is_dir():
            continue
        table = DeltaTable(f"{lake.rstrip('/')}/{name}")
        for file in files_of(table):
            path = location(table.table_uri, file.path)
            what = _damage(path, file) if isinstance(path, Path) else ""
            if isinstance(path, Path) and what:
                found.append(Damaged(path, name, what))
    return found


def _damage(path: Path, file: DataFile) -> str:
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
    if size_bytes != file.size_bytes:
        return f"has {size_bytes:,} B instead of {file.size_bytes:,}: it was cut off, or written over"
    with duckdb.connect() as probe:
        try:
            probe.execute("SELECT max(hash(COLUMNS(*))) FROM read_parquet(?)", [_literal(path)])
        except duckdb.Error:
            return "was written over: it is no longer a Parquet file that can be read to its end"
    return ""


def _literal(path: Path) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))

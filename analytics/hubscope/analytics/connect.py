"""A DuckDB connection over a lake: one view a table, and the few shim macros that hide what engines spell differently.

The views read the files of one Delta snapshot, so a report sees one moment of the lake while the collector goes on
writing. DuckDB's own Delta extension is not used: it must be downloaded at run time.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import duckdb
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from hubscope import lake_readers
from hubscope.analytics.damage import naming_damage
from hubscope.errors import ConfigError, LakeError
from hubscope.lake_log import REMEDY, check_log
from hubscope.lake_paths import DataFile, files_of, layout_of, names
from hubscope.lake_paths import location as location_of
from hubscope.lake_schema import LAKE_VERSION_KEY, PARTITION, SCHEMAS, check_version

# Ten million spans must be readable on a laptop beside everything else; past this DuckDB spills to disk.
DEFAULT_MEMORY_LIMIT: Final = "1536MiB"

# A cumulative series whose first point comes so soon after its start began then, also where its start lies before the
# window: two export intervals of 60 s (the same number as processors.feeding.MAX_FIRST_SPAN_S).
FIRST_POINT_S: Final = 120.0

# One definition of each shim, and what it means: what engines spell differently.
# What recording one span takes: 3,000 inserts of 1 µs each took 78 to 90 µs of CPU, and from 126 to 320 µs of wall
# time, an insert under `hubscope run` on two cores that others used too. The first figure says whether it matters, the
# second how much it may have been.
SPAN_COST_NS: Final = 130_000
SPAN_COST_BUSY_NS: Final = 320_000
# What of it lies between two queries that follow each other back to back: 60 to 65 µs, the median of 18,000 each.
RECORDING_GAP_NS: Final = 60_000
MACROS: Final = (
    f"CREATE OR REPLACE TEMP MACRO span_cost_ns() AS {SPAN_COST_NS}",
    f"CREATE OR REPLACE TEMP MACRO span_cost_busy_ns() AS {SPAN_COST_BUSY_NS}",
    f"CREATE OR REPLACE TEMP MACRO recording_gap_ns() AS {RECORDING_GAP_NS}",
    "CREATE OR REPLACE TEMP MACRO attr(m, k) AS m[k]",  # NULL where the key is missing
    "CREATE OR REPLACE TEMP MACRO has_attr(m, k) AS (m[k] IS NOT NULL)",
    "CREATE OR REPLACE TEMP MACRO attr_f(m, k) AS TRY_CAST(m[k] AS DOUBLE)",  # NULL where it is no number
    # A run is an instance and a version. A pair, not a text: a text put together for each row makes grouping by run
    # five times as dear (5 million rows: 1.0 s instead of 0.2); `fetch` makes it one when the rows come out.
    "CREATE OR REPLACE TEMP MACRO run_pair(i, v) AS {'instance': coalesce(i, ''), 'version': coalesce(v, '')}",
    "CREATE OR REPLACE TEMP MACRO run_of(m) AS run_pair(m['service.instance.id'], m['service.version'])",
    # What a point of a sum adds within a window; NULL where nobody knows when it grew. A delta adds its value; a
    # cumulative point what it grew by since the point before it of the same start (less than that: it began anew); and
    # the first point of a start all of it, if that lies within the window or so recently as the processors allow.
    "CREATE OR REPLACE TEMP MACRO added(temporality, value, value_before, start_ns, time_ns, since_ns) AS CASE"
    " WHEN temporality = 1 THEN value WHEN value >= value_before THEN value - value_before"
    " WHEN value_before IS NOT NULL OR start_ns >= since_ns THEN value"
    f" WHEN start_ns > 0 AND time_ns - start_ns <= {round(FIRST_POINT_S * 1e9)} THEN value END",
    "CREATE OR REPLACE TEMP MACRO ts_ns(t) AS epoch_ns(t)",  # shipped SQL over the lake uses the exact column
    "CREATE OR REPLACE TEMP MACRO bucket_ns(ns, width_ns) AS (ns - ns % width_ns)",
    "CREATE OR REPLACE TEMP MACRO q50(x) AS quantile_cont(x, 0.5)",  # exact, interpolated, as are the next two
    "CREATE OR REPLACE TEMP MACRO q95(x) AS quantile_cont(x, 0.95)",
    "CREATE OR REPLACE TEMP MACRO q99(x) AS quantile_cont(x, 0.99)",
    "CREATE OR REPLACE TEMP MACRO worst(id, cost) AS arg_max(id, cost)",  # the id of the row that cost most
    "CREATE OR REPLACE TEMP MACRO signed(x) AS CAST(x AS BIGINT)",  # before subtracting what may be unsigned
)


# A report asks some 150 queries. Up to so many rows a table is read once instead: opening its files and their footers
# each time took 0.17 s a query for 10,000 spans in 28 files, and 0.02 s from memory.
HELD_ROWS: Final = 200_000


def hold_small_tables(connection: duckdb.DuckDBPyConnection, most_rows: int = HELD_ROWS) -> None:
    """Puts each table of at most `most_rows` rows into DuckDB's memory, under the same name; larger ones stay files."""
    with naming_damage(connection):
        for name in SCHEMAS:
            (count,) = connection.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
            if count <= most_rows:
                connection.execute(f"CREATE TEMP TABLE held_{name} AS SELECT * FROM {name}")
                connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM held_{name}")


def connect(
    lake: str | os.PathLike[str], *, memory_limit: str = DEFAULT_MEMORY_LIMIT, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with a view `otel_traces`, `otel_logs`, `otel_metrics_…` for each lake table.

    A table the lake does not have yet is an empty view with the right columns. `memory_limit` is DuckDB's own text
    ("2GB"); `threads` None leaves one a core.
    Raises LakeError where there is no lake, where it is newer than this reader, or where a table cannot be read.
    """
    location = os.fspath(lake)
    lease = lake_readers.take(location) if _has_tables(location) else None
    try:
        connection = _connect(location, memory_limit, threads, lease)
    except BaseException:
        if lease is not None:
            lease.release()
        raise
    if lease is not None:  # what the views read stays until the connection is collected, or the process ends
        weakref.finalize(connection, lease.release)
    return connection


def _connect(
    location: str, memory_limit: str, threads: int | None, lease: lake_readers.Lease | None
) -> duckdb.DuckDBPyConnection:
    with ThreadPoolExecutor(len(SCHEMAS)) as pool:  # each looks into its log: on an object store, some round trips
        opened = pool.map(lambda name: _snapshot(location, name), SCHEMAS)
        connection = _engine(memory_limit, threads)  # 20 ms meanwhile
        snapshots = dict(zip(SCHEMAS, opened, strict=True))
    files = {name: files_of(table) for name, table in snapshots.items() if table is not None}
    if lease is not None:
        lease.hold(path for name, found in files.items() for path in names(found, name))
    if "://" not in location and Path(location).is_file():
        raise LakeError(
            f"{location} is a file; the lake is a folder", "name another place with --lake or HUBSCOPE_LAKE"
        )
    if all(snapshot is None for snapshot in snapshots.values()) and not _is_started(location):
        raise LakeError(
            f"there is no hubscope lake at {location}",
            "`hubscope run -- CMD` or `hubscope collect` fills one; --lake PATH or HUBSCOPE_LAKE names another place",
        )
    places = {
        name: _places(snapshot, files[name]) if snapshot is not None else {} for name, snapshot in snapshots.items()
    }
    _mount(connection, location, {place: size for found in places.values() for place, size in found.items()})
    for name, found in places.items():
        try:
            layouts = {file.layout for file in files.get(name, ())}
            with naming_damage(connection):
                _create_view(connection, name, list(found), layouts.pop() if len(layouts) == 1 else "")
        except duckdb.Error as error:
            raise LakeError(
                f"table {name} of the lake at {location} cannot be read: {_first_line(error)}",
                "restore that file from a backup; or move the table aside and `hubscope import` the data again",
            ) from error
    return connection


def _engine(memory_limit: str, threads: int | None) -> duckdb.DuckDBPyConnection:
    """A DuckDB as every reader wants it, with the macros."""
    try:
        connection = duckdb.connect(
            config={"memory_limit": memory_limit, **({"threads": threads} if threads is not None else {})}
        )
    except (duckdb.Error, ValueError) as error:
        raise ConfigError(
            f"DuckDB refuses memory_limit={memory_limit!r}, threads={threads!r}: {_first_line(error)}",
            'give a size such as "2GB" and a thread count of 1 or more',
        ) from error
    # Rows are always ordered by name where order matters; keeping insertion order costs memory on large scans.
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET TimeZone = 'UTC'")
    # Files of a lake never change. Reading the footers of ten million spans again cost each query 20 ms of CPU.
    with contextlib.suppress(duckdb.CatalogException):  # an older DuckDB has another name for it
        connection.execute("SET parquet_metadata_cache = true")
    # DuckDB draws its bar on stdout after two seconds, into the middle of a report that a script reads.
    with contextlib.suppress(duckdb.InvalidInputException):  # Jupyter without ipywidgets draws none, and refuses this
        connection.execute("SET enable_progress_bar = false")
    for macro in MACROS:
        connection.execute(macro)
    return connection


def _has_tables(location: str) -> bool:
    return "://" not in location and any((Path(location) / name / "_delta_log").is_dir() for name in SCHEMAS)


def _is_started(location: str) -> bool:
    """Whether a collector has prepared this folder though no row has arrived yet."""
    return "://" not in location and (Path(location) / ".state").is_dir()


def _snapshot(location: str, name: str) -> DeltaTable | None:
    """The newest snapshot of one table, or None where the lake has no such table."""
    uri = f"{location.rstrip('/')}/{name}"
    if "://" not in location and not (Path(location) / name / "_delta_log").is_dir():
        return None
    check_log(location, name)
    try:
        table = DeltaTable(uri)
        version = table.metadata().configuration.get(LAKE_VERSION_KEY)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise LakeError(
            f"table {name} of the lake at {location} cannot be opened: {_first_line(error)}",
            REMEDY,
        ) from error
    check_version(version, location)
    return table


def _places(table: DeltaTable, files: Sequence[DataFile]) -> dict[str, int]:
    """Where DuckDB finds the files, and their sizes: local ones as patterns that mean themselves, for DuckDB globs."""
    places: dict[str, int] = {}
    for file in files:
        found = location_of(table.table_uri, file.path)
        place = _place_of(found) if isinstance(found, str) else re.sub(r"([*?\[])", r"[\1]", str(found))
        places[place] = file.size_bytes
    return places


def _place_of(url: str) -> str:
    try:
        from hubscope.analytics.object_store import place_of
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{url} is on an object store, and module {error.name} is missing", "pip install 'hubscope[analytics]'"
        ) from error
    return place_of(url)


def _mount(connection: duckdb.DuckDBPyConnection, location: str, sizes: Mapping[str, int]) -> None:
    """Let DuckDB read what is on object stores, and note all the folders that the views read."""
    remote = {place: size for place, size in sizes.items() if place.startswith("lake://")}
    if remote:
        from hubscope.analytics.object_store import ObjectStore

        connection.register_filesystem(ObjectStore(remote))
    folders = {re.sub(r"\[([*?\[])\]", r"\1", place.partition(f"/{PARTITION}=")[0]) for place in sizes}
    here = {location.rstrip("/\\")} if "://" not in location else set()
    literal = ", ".join("'" + f"{folder}/".replace("'", "''") + "'" for folder in sorted(folders | here))
    connection.execute(f"SET VARIABLE hubscope_folders = CAST([{literal}] AS VARCHAR[])")
    connection.execute("SET VARIABLE hubscope_lake = '" + location.replace("'", "''") + "'")


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, places: Sequence[str], layout: str) -> None:
    """`layout`: what all the files have for columns (`layout_of`), so that DuckDB need not look at each; else ''."""
    schema: Any = SCHEMAS[name]
    empty = f"empty_{name}"
    connection.register(empty, schema.empty_table())
    if not places:
        connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {empty}")
        return
    # Paths come from the lake's own log; DDL takes no bound values, so they are quoted as SQL literals.
    files = ", ".join("'" + place.replace("'", "''") + "'" for place in places)
    hive = f", hive_partitioning = true, hive_types = {{'{PARTITION}': DATE}}" if f"/{PARTITION}=" in places[0] else ""
    source = f"read_parquet([{files}], union_by_name = {str(not layout).lower()}{hive})"
    present, types = set(schema.names), dict[str, str]()
    if layout != layout_of(name, (column for column in schema.names if column != PARTITION)):
        present = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {empty}").fetchall()}
    # A lake written before a column existed reads as NULL there.
    columns = ", ".join(
        f'"{column}"' if column in present else f'CAST(NULL AS {types[column]}) AS "{column}"'
        for column in schema.names
    )
    connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} FROM {source}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""SQLite databases that were given for looking into: which one, what plan, and timing on a copy.

The original is opened read-only and never written. Indexes are made on a copy in a temporary folder.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

# One statement may take this long in all its repetitions; a plan that needs more is judged by fewer.
BUDGET_S: Final = 2.0
REPETITIONS: Final = 25
UNCOMPARED: Final = ("LIMIT", "OFFSET", "LITERAL")


def open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)


def database_of(databases: Sequence[Path], namespace: str, text: str) -> Path | None:
    """The given database a statement ran on: by its file's name, else the one that understands the statement."""
    by_name = [path for path in databases if namespace and path.name == Path(namespace).name]
    for path in (*by_name, *(path for path in databases if path not in by_name)):
        try:
            with_plan = open_read_only(path)
        except sqlite3.Error:
            continue
        try:
            plan(with_plan, text)
            return path
        except sqlite3.Error:
            continue
        finally:
            with_plan.close()
    return None


def plan(connection: sqlite3.Connection, text: str, values: Sequence[Any] | None = None) -> tuple[str, ...]:
    """The lines of EXPLAIN QUERY PLAN; raises sqlite3.Error where the statement does not fit the database."""
    bound = tuple(values) if values is not None else (None,) * text.count("?")
    return tuple(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", bound))


def scans(lines: Sequence[str]) -> bool:
    """Whether the plan reads a whole table, or sorts what it found because no index has that order."""
    return any(line.startswith("SCAN ") for line in lines)


def improvable(lines: Sequence[str]) -> bool:
    return scans(lines) or any("USE TEMP B-TREE FOR ORDER BY" in line for line in lines)


@contextmanager
def copy_of(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a private copy, removed afterwards. Raises OSError where the disk has no room for it."""
    size = path.stat().st_size
    with tempfile.TemporaryDirectory(prefix="hubscope-") as folder:
        if shutil.disk_usage(folder).free < 2 * size + 64 * 2**20:
            raise OSError(f"{folder} has no room for a copy of {path.name} ({size / 2**20:.0f} MiB)")
        target = Path(folder) / "copy.db"
        source = open_read_only(path)
        copy = sqlite3.connect(target)
        try:
            source.backup(copy)  # takes in what still lies in the write-ahead log
            # A copy is thrown away: waiting for the disk would only be timed along.
            copy.execute("PRAGMA synchronous = OFF")
            yield copy
        finally:
            copy.close()
            source.close()


def table_columns(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})"))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def sample_values(
    connection: sqlite3.Connection, table: str, text: str, count: int, rows: float | None
) -> list[tuple[Any, ...]]:
    """`count` sets of values for the statement's placeholders, taken from rows of the table itself.

    A placeholder compared with a column takes that column's value of one row, all of a set from the same row; LIMIT
    takes the rows the spans returned (else 50), OFFSET 0. What stands elsewhere was a literal, an argument of a
    function most often, and takes 1. Raises ValueError for a comparison with another table's column.
    """
    slots = placeholders(text, table_columns(connection, table))
    columns = sorted({slot for slot in slots if slot not in UNCOMPARED})
    picked: list[dict[str, Any]]
    if columns:
        listed = ", ".join(quoted(column) for column in columns)
        # The same rows each time: every k-th of the table by rowid order.
        total = connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0]
        step = max(total // max(count, 1), 1)
        picked = [
            dict(zip(columns, row, strict=True))
            for offset in range(0, min(total, step * count), step)
            for row in connection.execute(f"SELECT {listed} FROM {quoted(table)} LIMIT 1 OFFSET ?", (offset,))
        ]
    else:
        picked = [{} for _ in range(count)]
    limit = max(round(rows), 1) if rows else 50
    fixed = {"LIMIT": limit, "OFFSET": 0, "LITERAL": 1}
    return [tuple(fixed[s] if s in fixed else row[s] for s in slots) for row in picked]


def placeholders(text: str, columns: Sequence[str]) -> tuple[str, ...]:
    """For each `?` of the statement the column it is compared with, or one of UNCOMPARED."""
    known = {column.lower(): column for column in columns}
    slots: list[str] = []
    for match in re.finditer(r"\?", text):
        before = text[: match.start()].rstrip()
        if re.search(r"\bLIMIT$", before, re.IGNORECASE):
            slots.append("LIMIT")
            continue
        if re.search(r"\bOFFSET$", before, re.IGNORECASE):
            slots.append("OFFSET")
            continue
        compared = re.search(
            r"""(?:[\w"]+\s*\.\s*)?["`]?([A-Za-z_]\w*)["`]?\s*(?:=|==|<|>|<=|>=|<>|!=|\bIS|\bIN\s*\()\s*$""",
            before,
            re.IGNORECASE,
        )
        if compared is None:
            slots.append("LITERAL")
            continue
        column = known.get(compared.group(1).lower())
        if column is None:
            raise ValueError(f"{compared.group(0).strip()} ? compares no column of the table, so no value is known")
        slots.append(column)
    return tuple(slots)


def median_time_s(connection: sqlite3.Connection, text: str, values: Sequence[Sequence[Any]]) -> float:
    """Median time to run and fetch the statement, over the sets of values, within the budget."""
    taken: list[float] = []
    begin = time.perf_counter()
    for repetition in range(REPETITIONS):
        start = time.perf_counter()
        connection.execute(text, tuple(values[repetition % len(values)])).fetchall()
        now = time.perf_counter()
        taken.append(now - start)
        if now - begin > BUDGET_S and len(taken) >= 3:
            break
    taken.sort()
    return taken[len(taken) // 2]

"""Which whole days leave the lake: those past their age, and the oldest first where there is too much of it.

A file's day is that of its rows, unless no row can be of it: one span that says 2099 must neither make today the oldest
day but one nor stay for ever, and one that says nothing is not of 1970. Such a file is of the day it was written.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hubscope.lake_paths import DataFile, is_elsewhere

# Of each table the files of its snapshot.
Snapshot = Mapping[str, Sequence[DataFile]]

NO_TIME_DAY: Final = "1970-01-01"  # where older versions filed rows without a time


def day_of(unix_s: float) -> str:
    """The UTC day (ISO); the first there is for what lies before it."""
    first = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return datetime.datetime.fromtimestamp(max(unix_s, first.timestamp()), datetime.UTC).date().isoformat()


def day_in_order(file: DataFile, today: str) -> str:
    """The day (ISO) that a file leaves with."""
    return file.day if NO_TIME_DAY < file.day <= today else day_of(file.written_unix_ms / 1000)


def past(files: Sequence[DataFile], now_unix_s: float, age_s: float) -> list[DataFile]:
    """The files of days that are older than `age_s` as a whole; none where that is 0."""
    if not age_s:
        return []
    first, today = day_of(now_unix_s - age_s), day_of(now_unix_s)
    return [file for file in files if day_in_order(file, today) < first]


def days_beyond(snapshot: Snapshot, tables: Iterable[str], max_size_bytes: int, today: str) -> list[str]:
    """The oldest days of `tables` that must go so that the whole snapshot takes no more than that. The newest stays."""
    size_bytes = sum(file.size_bytes for files in snapshot.values() for file in files)
    sizes = sizes_of_days(snapshot, tables, today)
    gone: list[str] = []
    for day in sorted(sizes)[:-1]:
        if size_bytes <= max_size_bytes:
            break
        gone.append(day)
        size_bytes -= sizes[day]
    return gone


def sizes_of_days(snapshot: Snapshot, tables: Iterable[str], today: str, *, local: bool = False) -> dict[str, int]:
    """Bytes of each day of `tables`; `local` counts those in the lake's own folder only, but names every day."""
    sizes: dict[str, int] = {}
    for name in tables:
        for file in snapshot.get(name, ()):
            day = day_in_order(file, today)
            counts = not (local and is_elsewhere(file.path))
            sizes[day] = sizes.get(day, 0) + (file.size_bytes if counts else 0)
    return sizes

"""Which whole days leave the lake: those past their age, and the oldest first where there is too much of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from hubscope.lake_paths import DataFile, is_elsewhere

# Of each table the files of its snapshot.
Snapshot = Mapping[str, Sequence[DataFile]]


def first_day_kept(now_unix_s: float, age_s: float) -> str:
    """The oldest UTC day (ISO) of which some moment is not older than that."""
    oldest = datetime.datetime.fromtimestamp(now_unix_s - age_s, datetime.UTC)
    return oldest.date().isoformat()


def past(files: Sequence[DataFile], now_unix_s: float, age_s: float) -> list[DataFile]:
    """The files of days that are older than `age_s` as a whole; none where that is 0."""
    if not age_s:
        return []
    first = first_day_kept(now_unix_s, age_s)
    return [file for file in files if file.day < first]


def days_beyond(snapshot: Snapshot, tables: Iterable[str], max_size_bytes: int) -> list[str]:
    """The oldest days of `tables` that must go so that the whole snapshot takes no more than that. The newest stays."""
    size_bytes = sum(file.size_bytes for files in snapshot.values() for file in files)
    sizes = sizes_of_days(snapshot, tables)
    gone: list[str] = []
    for day in sorted(sizes)[:-1]:
        if size_bytes <= max_size_bytes:
            break
        gone.append(day)
        size_bytes -= sizes[day]
    return gone


def sizes_of_days(snapshot: Snapshot, tables: Iterable[str], *, local: bool = False) -> dict[str, int]:
    """Bytes of each day of `tables`; `local` counts those in the lake's own folder only, but names every day."""
    sizes: dict[str, int] = {}
    for name in tables:
        for file in snapshot.get(name, ()):
            counts = not (local and is_elsewhere(file.path))
            sizes[file.day] = sizes.get(file.day, 0) + (file.size_bytes if counts else 0)
    return sizes

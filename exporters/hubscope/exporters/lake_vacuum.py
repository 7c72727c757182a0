"""Removing files that no commit names any more, but never one that a reader may still open.

What was replaced or dropped goes when its grace is over and no lease holds it. What the log does not tell of, the rest
of a killed write or what was dropped while no collector ran, goes when it is a day old and was seen like that for the
grace, and the time before: a machine that slept between writing a file and committing it looks like that at first.
In a cold folder that several lakes share, as older versions' is, only what this lake's log has dropped goes: a file it
does not tell of is another lake's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from deltalake import DeltaTable

from hubscope import lake_readers
from hubscope.exporters.lake_files import Storage
from hubscope.lake_paths import files_of, is_elsewhere, is_own_base, split

ORPHAN_AGE_S: Final = 86_400.0

_log = logging.getLogger(__name__)


class Removed(NamedTuple):
    files: int
    size_bytes: int
    held: int  # files that were due and that a reader holds


class Vacuum:
    """Vacuum of one lake's tables; remembers the orphans that it saw."""

    def __init__(self, lake: str) -> None:
        self._lake = lake
        self._orphans: dict[str, dict[str, float]] = {}  # table -> path -> when it was first seen, monotonic

    def __call__(self, name: str, table: DeltaTable, storage: Storage, bases: Iterable[str], grace_s: float) -> Removed:
        """Remove what may go of the table's folder and of the folders `bases` where its other files stand.

        `table` must be newly opened: what is not in it now, no later reader sees.
        """
        there = [listed for base in ("", *bases) for listed in storage.listing(base)]
        named = {file.path for file in files_of(table)}
        dropped = {
            _plain(path)
            for path in table.vacuum(math.ceil(grace_s / 3600), dry_run=True, enforce_retention_duration=False)
        }
        table_id = str(table.metadata().id)
        held = lake_readers.held(self._lake)  # after the table was opened: see lake_readers
        seen_before, orphans = self._orphans.get(name, {}), dict[str, float]()
        now_s = time.monotonic()
        oldest_unix_s = time.time() - ORPHAN_AGE_S
        files = size_bytes = kept = 0
        for path, size, written_unix_s in there:
            if path in named:
                continue
            if _plain(quote(path, safe="/:") if is_elsewhere(path) else path) not in dropped:
                if not 0 < written_unix_s < oldest_unix_s:
                    continue
                if is_elsewhere(path) and not is_own_base(split(path)[0], table_id):
                    continue
                orphans[path] = seen_before.get(path, now_s)
                if path not in seen_before or now_s - seen_before[path] < grace_s:
                    continue
            if held is None or f"{name}/{path}" in held:
                kept += 1
            elif storage.discard(path):
                files += 1
                size_bytes += size
        self._orphans[name] = orphans
        if files:
            _log.info("%s: %d files that nothing names any more removed, %.1f MiB", name, files, size_bytes / 2**20)
        return Removed(files, size_bytes, kept)


def _plain(path: str) -> str:
    """A path as delta-rs' vacuum gives it: a URL there has lost a slash and is percent-encoded."""
    scheme, colon, rest = path.partition(":/")
    return f"{scheme}:/{unquote(rest).lstrip('/')}" if colon else path

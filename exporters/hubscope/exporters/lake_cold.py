"""The cold tier: days past `cold_after` in larger, more strongly compressed files, here or at a URL of their own.

A cold file elsewhere stands in the same table's log under its whole URL, as the Delta protocol allows. So moving a day
is one commit that takes the warm files out and puts the cold ones in, and this holds at every moment, whatever dies:

    A row is in the lake if and only if its file is named by the newest version of its table's log.

Killed before the commit, the cold files are orphans, which vacuum takes; killed after it, the warm files are what any
replaced file is. A reader sees the version from before or from after, each with every row once. A second Delta table
for the cold days would need a rule for the moment between two commits, and every reader would have to know it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from deltalake import DeltaTable

from hubscope.exporters.lake_files import Storage, write_file
from hubscope.exporters.lake_merge import FILES_BEFORE_MERGE, SMALL_BYTES, replace, row_groups, up_to
from hubscope.lake_paths import COLD, DataFile

COLD_BYTES: Final = 512 << 20  # of the files that become one
COLD_LEVEL: Final = 12
# What arrives late for a cold day waits so long for more of its kind: a file of its own each minute would be 1,440.
LATE_MS: Final = 3_600_000


def due(files: Sequence[DataFile], before_day: str, now_ms: int) -> list[list[DataFile]]:
    """What is to become one cold file each: a day's warm files, with small cold ones beside them."""
    chosen: list[list[DataFile]] = []
    for day in dict.fromkeys(file.day for file in files if file.day < before_day and not file.is_cold):
        of_day = [file for file in files if file.day == day]
        warm = [file for file in of_day if not file.is_cold]
        is_late = len(warm) < len(of_day)
        if is_late and len(warm) < FILES_BEFORE_MERGE and now_ms - max(f.written_unix_ms for f in warm) < LATE_MS:
            continue
        small = [file for file in of_day if file.is_cold and file.size_bytes < SMALL_BYTES]
        chosen += up_to(COLD_BYTES, [*small, *warm])
    return chosen


def move(
    name: str, table: DeltaTable, storage: Storage, files: Sequence[DataFile], base: str, stopping: threading.Event
) -> None:
    """Put one cold file in the place of files of one day; `base` as `lake_paths.cold_base` gives it.

    Raises Stopped where `stopping` is set, CommitFailedError where another collector came first.
    """
    parts = row_groups(name, table, storage, files, stopping)
    cold = write_file(storage, name, files[0].day, parts, COLD_LEVEL, folder=base, prefix=COLD, data_change=False)
    replace(table, storage, files, [cold])

"""Which lake the requests in a state folder are for: another one must not get them by a changed flag."""

from __future__ import annotations

import os
from pathlib import Path

from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.durable import write_durably
from hubscope.collector.log.wal import open_segments, sealed_segments, segment_number
from hubscope.errors import ConfigError


def check_lake(state_dir: Path, wal_dir: Path, lake: str) -> None:
    """Note the lake that this state folder is for. One beside its lake moves with it, and is not asked.

    Raises ConfigError where it holds what was accepted for another lake, OSError where it cannot be written.
    """
    if "://" not in lake and state_dir.absolute().is_relative_to(Path(lake).absolute()):
        return
    path = state_dir / "lake"
    before = path.read_text("utf-8").strip() if path.exists() else lake
    if before != lake and (waiting := _waiting(state_dir, wal_dir)):
        raise ConfigError(
            f"{state_dir} holds {waiting} segment{'s' * (waiting > 1)} of requests that were accepted for the lake"
            f" {before} and are not in it yet; this one is {lake}",
            f"start once with --lake {before} until they are in it, or name another --state; where {lake} is that lake,"
            f" moved, remove {path}",
        )
    if before != lake or not path.exists():
        write_durably(path, f"{lake}\n".encode())


def _waiting(state_dir: Path, wal_dir: Path) -> int:
    """Segments with requests that the lake has not got."""
    written = Cursor(state_dir, "lake").segment
    sealed = sum(segment_number(path) > written for path in sealed_segments(wal_dir))
    return sealed + sum(os.path.getsize(path) > 0 for path in open_segments(wal_dir))

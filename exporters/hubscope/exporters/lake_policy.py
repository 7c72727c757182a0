"""How long the lake keeps what, and where: what its owner says. Loads no Arrow, for the front reads it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LakePolicy:
    """0 and '' switch a part off. Ages are those of whole UTC days: a day is as old as its last moment."""

    cold_after_s: float = 0.0  # then a day is compressed more strongly, once
    cold_url: str = ""  # and goes there: a folder or an object store; '' leaves it beside the rest
    retention_s: float = 0.0  # then a day is dropped
    rollup_retention_s: float = 0.0  # the same for the rollups, which neither size nor disk drops
    max_size_bytes: int = 0  # of all the lake's files, warm and cold; the oldest day goes first, the newest stays
    # Twice what the front keeps free (`log.min_free_disk`), so that the oldest day goes before a sender is refused.
    min_free_disk_bytes: int = 512 << 20
    # What was replaced stays this long for readers that have no lease: other programs, and all of an object store's.
    reader_grace_s: float = 3600.0

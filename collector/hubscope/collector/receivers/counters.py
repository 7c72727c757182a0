"""What the front counts. Plain integers: everything runs on one event loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counters:
    """Totals since the front's start."""

    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)  # (items, transport): durable and acknowledged
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)  # (items, transport): told to come later
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # (transport, outcome)
    repeated_requests: int = (
        0  # already in the log from before a crash or a broken connection: acknowledged, not stored
    )
    log_bytes: int = 0  # written to the log
    log_syncs: int = 0
    log_failures: int = 0  # appends that the disk refused
    torn_bytes: int = 0  # cut off at start: half-written by a collector that was killed, never acknowledged

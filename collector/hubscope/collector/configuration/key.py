"""What one key of the configuration file is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Key(NamedTuple):
    """One key of the configuration file. `read` raises ValueError with what the value must be."""

    path: str
    read: Callable[[Any], Any]
    field: str  # of CollectorSettings, or of a group of it: `limits.…`, `security.…`, `redaction.…`
    brief: str

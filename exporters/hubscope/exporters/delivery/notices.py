"""What the user has to know of sending: on the log, with the remedy, and not once a batch."""

from __future__ import annotations

import logging
import time
from typing import Final

_log = logging.getLogger("hubscope")
AGAIN_S: Final = 600.0  # a collector that comes and goes is told of six times an hour
_told: Final[dict[object, float]] = {}


def tell(key: object, message: str, *arguments: object, level: int = logging.WARNING) -> None:
    """Log it, unless the same `key` was told of in the last ten minutes."""
    now = time.monotonic()
    last = _told.get(key)
    if last is not None and now - last < AGAIN_S:
        return
    if len(_told) > 100:
        _told.clear()
    _told[key] = now
    _log.log(level, "hubscope: " + message, *arguments)

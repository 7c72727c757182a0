"""The time that retention goes by: the clock's, unless that has run ahead of all that is known of it.

A clock that jumps 400 days ahead, for a minute even, would drop a whole lake whose retention is 30 days; one that goes
back drops nothing. So a jump of more than MAX_AHEAD_S, since the last look or since the lake's newest file was written,
counts only once the clock has stood by it for DOUBT_S of this process' life.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from typing import Final

MAX_AHEAD_S: Final = 3 * 86_400.0  # a machine sleeps over a weekend
DOUBT_S: Final = 86_400.0  # a day's delay of a drop harms nobody

_log = logging.getLogger(__name__)


class TrustedClock:
    """Seconds since 1970, asked from one thread."""

    def __init__(self, now_unix_s: Callable[[], float], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._now_unix_s = now_unix_s
        self._monotonic_s = monotonic_s
        self._trusted_unix_s: float | None = None
        self._looked_s = 0.0
        self._doubted_s: float | None = None  # since when; None where the clock is believed

    def __call__(self, newest_unix_s: float) -> float:
        """The clock's time, or where that is in doubt what it would be by the time that has passed.

        `newest_unix_s` is when the lake's newest file was written; 0.0 for a lake that has none.
        """
        now_unix_s, looked_s = self._now_unix_s(), self._monotonic_s()
        if self._trusted_unix_s is None:
            trusted_unix_s = newest_unix_s or now_unix_s
        else:
            trusted_unix_s = self._trusted_unix_s + looked_s - self._looked_s
        if now_unix_s <= trusted_unix_s + MAX_AHEAD_S:
            trusted_unix_s, self._doubted_s = now_unix_s, None
        elif self._doubted_s is None:
            self._doubted_s = looked_s
            _log.warning(
                "the clock says %s, %.0f days after what the lake knows of: no day is dropped by age until it has said"
                " so for a day",
                datetime.datetime.fromtimestamp(now_unix_s, datetime.UTC).isoformat(timespec="seconds"),
                (now_unix_s - trusted_unix_s) / 86_400,
            )
        elif looked_s - self._doubted_s >= DOUBT_S:
            trusted_unix_s, self._doubted_s = now_unix_s, None
        self._trusted_unix_s, self._looked_s = trusted_unix_s, looked_s
        return trusted_unix_s

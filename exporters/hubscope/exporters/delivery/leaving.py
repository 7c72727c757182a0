"""How long may be waited: a request's own time, and no longer than a process that is leaving can stay.

Nothing here interrupts anybody. Whoever waits does so in slices of 0.1 s and looks at the clock between them: so a
request that hangs when the process ends is given up in time, whoever began it and whatever exit handlers run first.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from hubscope.instrumentation import settings

SLICE_S: Final = 0.1
# Of the time to leave, what is kept for writing down what could not be sent: 10,000 spans take 0.1 s to encode and
# write on a machine that is not busy.
KEPT_S: Final = 0.4


class Leaving:
    """Whether this process is about to end, and until when it may use the network (`time.monotonic()`)."""

    def __init__(self) -> None:
        self._until: float | None = None

    def begin(self, timeout_s: float) -> None:
        """The process is leaving, within `timeout_s`. A later call changes nothing."""
        if self._until is None:
            self._until = time.monotonic() + timeout_s - min(KEPT_S, timeout_s / 3)

    def until(self) -> float | None:
        """When waiting has to end; None while the process is not leaving."""
        if self._until is None and interpreter_is_ending():
            self.begin(exit_timeout_s())
        return self._until

    def forget(self) -> None:
        """In a forked child: the parent was leaving."""
        self._until = None


class Wait:
    """What one request, or one pause, may wait."""

    __slots__ = ("_leaving", "_until")

    def __init__(self, timeout_s: float, leaving: Leaving) -> None:
        self._until = time.monotonic() + timeout_s
        self._leaving = leaving

    def left_s(self) -> float:
        """Seconds; not more than 0 when it is over."""
        leave = self._leaving.until()
        until = self._until if leave is None else min(self._until, leave)
        return until - time.monotonic()

    def slice_s(self) -> float:
        """How long to block before asking again. Raises TimeoutError when it is over."""
        left = self.left_s()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return min(left, SLICE_S)


def interpreter_is_ending() -> bool:
    """Whether exit handlers run: the main thread is done, and so is every other that Python waits for."""
    main = threading.main_thread()
    if main.is_alive():
        return False
    return not any(thread.is_alive() and not thread.daemon for thread in threading.enumerate() if thread is not main)


def exit_timeout_s() -> float:
    """What HUBSCOPE_EXIT_TIMEOUT_MS says."""
    return settings.positive_number(settings.EXIT_TIMEOUT_MS, settings.DEFAULT_EXIT_TIMEOUT_MS) / 1000


# The one of this process.
leaving: Final = Leaving()

"""The bound on memory: above it senders are told to come later, while there is something to work off.

What counts is the resident memory of the supervisor, the front, the worker and their children together, pages that they
share (of libraries: 50 MiB) once where the system says which these are. Python and Arrow keep freed memory for what
comes next, so a process that is idle may stand above the bound for ever: refusing until that falls would be for ever
too. So a refusal ends also when everything that was taken is in the lake.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from hubscope.collector.live import Live
from hubscope.errors import RetryableError

MEASURE_INTERVAL_S: Final = 0.25  # 128 MiB of waiting requests, the usual bound, take a second to arrive at 150 MB/s
OWN_FOR_S: Final = 2.0
RESUME_SHARE: Final = 0.95  # of the bound; without a distance each measurement would flip the answer
RETRY_AFTER_S: Final = 1.0


class Memory:
    """Measures on the event loop. `refusal` is what the intake answers with, or None."""

    def __init__(self, live: Live, is_behind: Callable[[], bool]) -> None:
        self.rss_bytes = 0
        self.by_pid: dict[int, int] = {}
        self.refusal: RetryableError | None = None
        self.refusals = 0  # times that it began
        self._heard = (0, 0, -OWN_FOR_S)  # own memory, resident memory then, and when
        self._live = live
        self._is_behind = is_behind  # whether something that was taken is not in the lake yet

    async def watch(self) -> None:
        """Measures until it is cancelled."""
        while True:
            self.measure()
            await asyncio.sleep(MEASURE_INTERVAL_S)

    def measure(self) -> None:
        limit_bytes = self._live.settings.limits.memory_bytes
        self.by_pid = {pid: rss_bytes(pid) for pid in collector_pids()}
        self.rss_bytes = sum(self.by_pid.values())
        bound_bytes = limit_bytes * RESUME_SHARE if self.refusal is not None else limit_bytes
        taken_bytes = self.rss_bytes
        is_over = taken_bytes > bound_bytes and self._is_behind()
        if is_over:
            taken_bytes = self._own_bytes(bound_bytes)
            is_over = taken_bytes > bound_bytes
        if not is_over:
            self.refusal = None
            return
        self.refusals += self.refusal is None
        self.refusal = RetryableError(
            f"the collector's processes take {taken_bytes >> 20} MiB of memory "
            f"(limits.memory is {limit_bytes >> 20} MiB)",
            retry_after_s=RETRY_AFTER_S,
        )

    def counted_bytes(self) -> int:
        """What the bound goes by: shared pages once, heard within OWN_FOR_S."""
        return self._own_bytes(math.inf)

    def _own_bytes(self, bound_bytes: float) -> int:
        """What the processes take with shared pages counted once.

        Asking takes 2 ms a process, the resident memory 20 us: so what was heard within OWN_FOR_S holds, with all that
        resident memory grew by since, as long as that is below the bound.
        """
        now_s = time.monotonic()
        heard_bytes, of_rss_bytes, at_s = self._heard
        likely_bytes = heard_bytes + max(0, self.rss_bytes - of_rss_bytes)
        if now_s - at_s < OWN_FOR_S and likely_bytes <= bound_bytes:
            return likely_bytes
        taken_bytes = sum(map(own_bytes, self.by_pid))
        self._heard = (taken_bytes, self.rss_bytes, now_s)
        return taken_bytes


def collector_pids() -> list[int]:
    """This process, the supervisor that started it, and all that they started."""
    supervisor = os.getppid()
    if not os.path.isdir("/proc/self/task"):
        try:
            return [supervisor, *(child.pid for child in psutil.Process(supervisor).children(recursive=True))]
        except psutil.Error:
            return [os.getpid()]
    found = [supervisor] if _is_supervisor(supervisor) else [os.getpid()]
    for pid in found:  # grows while it is walked
        found += _children(pid)
    return found


def _is_supervisor(pid: int) -> bool:
    """A front that somebody started by hand has a shell for a parent, whose other children are not ours."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"hubscope" in command and b"collect" in command
    return False


def _children(pid: int) -> list[int]:
    """From the kernel's own lists, 20 us; looking through all processes of the machine takes milliseconds."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_bytes().split())
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def own_bytes(pid: int) -> int:
    """Resident memory of a process, with its part of the pages that it shares; all of them where nobody says."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(b"Pss:")).split()[1])
    return rss_bytes(pid)

"""Empty requests in an idle log, so that traces that wait for sampling are decided though nothing else comes.

Everything that happens to a span follows the segments; a clock beside them would have to be made exactly-once of its
own. A tick is a log request of no bytes: no row, no commit, and nobody gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.receivers.intake import Intake
from hubscope.errors import RetryableError

_MIN_PAUSE_S: Final = 0.25


def needs_ticks(settings: CollectorSettings) -> bool:
    """Whether spans may wait: sampling is on, or was, and something of it is left."""
    left = Path(settings.state_dir) / "processors"
    return settings.processors.sampling.enabled or next(left.glob("sampling-spans-*.arrow"), None) is not None


async def tick(intake: Intake, now_told: Callable[[], CollectorSettings], stopping: asyncio.Event) -> None:
    """Until the stop: a few ticks when nothing came for a while, until everything that waits must be decided.

    `now_told()` are the settings as they are by then: a reload may switch sampling on.
    """
    quiet_since_s, seen = time.monotonic(), intake.accepted
    while not stopping.is_set():
        wait_s = now_told().processors.sampling.wait_s
        pause_s = max(_MIN_PAUSE_S, wait_s / 4)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), pause_s)
        if intake.accepted != seen:
            quiet_since_s, seen = time.monotonic(), intake.accepted
            continue
        is_over = time.monotonic() - quiet_since_s > wait_s + 3 * pause_s
        if not is_over and not stopping.is_set() and needs_ticks(now_told()):
            with contextlib.suppress(RetryableError):
                await intake.tick()


async def last_tick(intake: Intake, settings: CollectorSettings) -> None:
    """At a stop: a tick from when every wait is over, so that the lake has all there is."""
    if not needs_ticks(settings):
        return
    ahead_s = settings.processors.sampling.wait_s + 1.0
    with contextlib.suppress(RetryableError):
        await intake.tick(ahead_s)

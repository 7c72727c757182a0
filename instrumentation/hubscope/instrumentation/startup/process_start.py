"""When the process began, and how that is known.

A launcher's clock is best: it includes the interpreter's own start. Next best is the kernel's record of the
process creation (10 ms resolution on Linux). psutil's create_time may be off by up to 1 s on Linux, because it adds
whole seconds of boot time, so it serves only elsewhere.

`opentelemetry-instrument` turns itself into the application, with one process creation for both. Its own run is no part
of the start: `hubscope.otel_launcher` takes the launcher's clock there. What it then imports in the application, before
it comes to us, is measuring; where the interpreter's own start ended is known by the first thing it imports.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import MutableMapping
from typing import NamedTuple

from hubscope.instrumentation import settings

# When our code first ran in this process: the last resort, and where the `interpreter` phase ends at the latest.
LOADED_NS = time.time_ns()
_LOADER = "opentelemetry.instrumentation.auto_instrumentation"

# A launcher's clock that is older than the process by more than this was inherited from a grandparent.
# Measured: fork to exec to first instruction takes up to 0.2 s on a loaded machine.
_STALE_NS = 2_000_000_000


class ProcessStart(NamedTuple):
    """`unix_nano` of the start, and `origin`: `launcher`, `proc_stat`, `psutil` or `sdk_load`."""

    unix_nano: int
    origin: str


def interpreter_end_ns(start_ns: int) -> int:
    """Where the interpreter's own start ended and the measuring began.

    Under `opentelemetry-instrument` that is when `logging` was imported, which notes its time: its `sitecustomize`
    imports `argparse` and `logging` first (5 ms), then OpenTelemetry and what is installed (measured: 600 ms in front
    of us, on a loaded machine). Anywhere else it is our own first line.
    """
    site, loader, logging = (sys.modules.get(name) for name in ("sitecustomize", _LOADER, "logging"))
    places = {os.path.dirname(getattr(module, "__file__", None) or "") for module in (site, loader)}
    noted = getattr(logging, "_startTime", None)  # seconds, since Python 3.13 nanoseconds
    if site is None or loader is None or len(places) > 1 or not isinstance(noted, (int, float)):
        return LOADED_NS
    noted_ns = noted if isinstance(noted, int) else int(noted * 1e9)
    return noted_ns if start_ns <= noted_ns <= LOADED_NS else LOADED_NS


def find(environ: MutableMapping[str, str] | None = None) -> ProcessStart:
    """The start of this process. Takes the launcher's mark out of `environ`, so that children do not inherit it."""
    environ = os.environ if environ is None else environ
    said = environ.pop(settings.PROCESS_START, "")
    created_ns = _proc_stat_ns()
    if said.isdigit():
        launched_ns = int(said)
        stale = created_ns is not None and launched_ns < created_ns - _STALE_NS
        if launched_ns <= LOADED_NS and not stale:
            return ProcessStart(launched_ns, "launcher")
    if created_ns is not None:
        return ProcessStart(created_ns, "proc_stat")
    by_psutil_ns = _psutil_ns()
    if by_psutil_ns is not None:
        return ProcessStart(by_psutil_ns, "psutil")
    return ProcessStart(LOADED_NS, "sdk_load")


def _proc_stat_ns() -> int | None:
    """Field 22 of /proc/self/stat (clock ticks since boot) against CLOCK_BOOTTIME; None where there is neither."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            # The command's name stands in parentheses and may itself hold spaces and parentheses.
            fields = stat.read().rpartition(b")")[2].split()
        since_boot_ns = int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - since_boot_ns
    except (OSError, AttributeError, ValueError, IndexError):
        return None
    return _plausible(time.time_ns() - age_ns)


def _psutil_ns() -> int | None:
    try:
        import psutil

        return _plausible(int(psutil.Process().create_time() * 1e9))
    except Exception:  # noqa: BLE001 - psutil raises its own, and OSErrors, by platform
        return None


def _plausible(start_ns: int) -> int | None:
    """None for a start after our own first instruction: a container with a shifted boot clock says such things."""
    return start_ns if start_ns <= LOADED_NS else None

"""Telling systemd how it goes: the datagrams of sd_notify(3). Without NOTIFY_SOCKET it says nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(*lines: str) -> None:
    """Send state lines such as READY=1 or STATUS=…. A manager that does not listen stops nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect("\0" + address[1:] if address[0] == "@" else address)  # @ stands for the abstract namespace
        sender.send("\n".join(lines).encode())


def reloading() -> None:
    """A reload begins; `Type=notify-reload` takes it for the one it asked for by the clock."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval_s() -> float | None:
    """How often WATCHDOG=1 is due: half of what systemd waits for; None where it does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return max(0.05, int(os.environ["WATCHDOG_USEC"]) / 2e6)
    except (KeyError, ValueError):
        return None

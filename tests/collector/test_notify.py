"""What systemd is told, over a real datagram socket: readiness, reloads, the watchdog, the stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubscope.collector import notify

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd runs on Linux")


class Manager:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.told: list[dict[str, str]] = []

    def has(self, **wanted: str) -> bool:
        """Whether a datagram with these lines has come by now."""
        while True:
            try:
                lines = self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                break
            self.told.append(dict(line.split("=", 1) for line in lines))
        return any(all(said.get(k) == v for k, v in wanted.items()) for said in self.told)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_datagram_reaches_the_manager(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets in the file system and in the abstract namespace are both reached, with all lines in one datagram."""
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    address = str(tmp_path / "notify") if kind == "path" else f"@hubscope-test-{os.getpid()}"
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.notify("READY=1", "STATUS=It runs")
    assert manager.has(READY="1", STATUS="It runs")
    manager.socket.close()


def test_a_manager_that_is_gone_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No socket, a socket nobody reads, and an address of an unknown kind are all silent."""
    for address in (str(tmp_path / "nobody"), "vsock:2:1", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify.notify("READY=1")
    assert not caplog.records


def test_the_watchdog_is_fed_twice_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of WATCHDOG_USEC; nothing where it is not set, is nonsense, or is meant for another process."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval_s() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_interval_s() is None
    monkeypatch.delenv("WATCHDOG_PID")
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert notify.watchdog_interval_s() is None


def test_a_collector_tells_its_whole_life(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """READY when it takes requests, WATCHDOG all along, RELOADING with the clock, READY again, STOPPING."""
    manager = Manager(str(tmp_path / "notify"))
    collector = new_collector(environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
    collector.start()
    collector.wait_for(lambda: manager.has(READY="1"), "READY=1")
    status = next(said["STATUS"] for said in manager.told if "READY" in said)
    assert collector.addresses["grpc"] in status
    collector.wait_for(lambda: manager.has(WATCHDOG="1"), "WATCHDOG=1")
    manager.told.clear()
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: manager.has(RELOADING="1"), "RELOADING=1")
    collector.wait_for(lambda: manager.has(READY="1"), "READY=1 after the reload")
    kinds = [next(iter(said)) for said in manager.told if "WATCHDOG" not in said]
    assert kinds == ["RELOADING", "READY"]
    assert int(manager.told[0]["MONOTONIC_USEC"]) >= before_us
    assert collector.stop() == 0
    assert manager.has(STOPPING="1")
    manager.socket.close()

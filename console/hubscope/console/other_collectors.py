"""The hubscope collectors of this machine, and which of them has a port: what is sent to one goes into its own lake.

Asked are the processes and the settings that each was started with, not the ports: a collector on its way out still
has its port and answers nobody, and one that is just starting has none yet but will take it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubscope.collector import leases
from hubscope.collector.configuration.addresses import Address

_FRONT: Final = "hubscope.collector.front"
# With more room and files than these, a collector has written where it is.
FEW_BYTES: Final = 1 << 20
FEW_FILES: Final = 16


@dataclass(frozen=True)
class Running:
    """A collector: `state` is its folder, `ports` are those for OTLP and telemetry, `pid` is its front's. One that
    `is_leased` leaves with the last program it was started for."""

    pid: int
    lake: str
    state: Path
    addresses: dict[str, str]  # HOST:PORT of grpc, http and telemetry
    ports: frozenset[int]
    is_leased: bool
    settings: Path

    @property
    def is_leaving(self) -> bool:
        """Whether no program needs it any more: it is gone within seconds."""
        return self.is_leased and not leases.living(self.state)


def at(address: Address) -> Running | None:
    """The collector that has this port, or is about to take or to leave it.

    None for any other process, and for a collector of somebody else: only its owner can read its settings.
    """
    if not address.port:
        return None
    return next((running for running in _all() if address.port in running.ports), None)


def without_room(state: Path) -> Running | None:
    """The collector of this state folder where its disk has no room for the file that says where it is.

    It is looked for only there: going through the processes takes some 20 ms.
    """
    if not _is_full(state):
        return None
    place = os.path.realpath(state)
    return next((running for running in _all() if os.path.realpath(running.state) == place), None)


def _is_full(folder: Path) -> bool:
    try:
        if shutil.disk_usage(folder).free < FEW_BYTES:
            return True
        found = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError:
        return False
    return found is not None and 0 <= found.f_favail < FEW_FILES < found.f_files  # 0 of 0 files: it counts none


def _all() -> Iterator[Running]:
    """This user's collectors. What a process of somebody else says of itself is not believed."""
    import psutil

    try:
        mine = psutil.Process().username()
    except psutil.Error:
        return
    for process in psutil.process_iter(["cmdline", "username"]):
        command = process.info["cmdline"] or []
        if _FRONT in command and command[-1].startswith("@") and process.info["username"] == mine:
            running = _running(process.pid, Path(command[-1][1:]))
            if running is not None:
                yield running


def _running(pid: int, settings: Path) -> Running | None:
    try:
        said = json.loads(settings.read_text("utf-8"))
        addresses = {key: str(Address(str(said[key][0]), int(said[key][1]))) for key in ("grpc", "http", "telemetry")}
        ports = frozenset(int(said[key][1]) for key in addresses)
        state = Path(said.get("state_dir") or settings.parent)
        is_leased = bool(said["stop_without_leases"])
        return Running(pid, str(said["lake"]), state, addresses, ports, is_leased, settings)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None

"""The hubscope collectors of this machine, and which of them has a port: what is sent to one goes into its own lake.

Asked are the processes and the settings that each was started with, not the ports: a collector on its way out still
has its port and answers nobody, and one that is just starting has none yet but will take it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hubscope.collector import leases
from hubscope.collector.configuration.addresses import Address

_FRONT: Final = "hubscope.collector.front"


@dataclass(frozen=True)
class Running:
    """A collector: `state` is its folder, `ports` are those for OTLP and telemetry. One that `is_leased` leaves with
    the last program it was started for."""

    pid: int
    lake: str
    state: Path
    ports: frozenset[int]
    is_leased: bool

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
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if _FRONT in command and command[-1].startswith("@"):
            running = _running(process.pid, Path(command[-1][1:]))
            if running is not None and address.port in running.ports:
                return running
    return None


def _running(pid: int, settings: Path) -> Running | None:
    try:
        said = json.loads(settings.read_text("utf-8"))
        ports = frozenset(int(said[key][1]) for key in ("grpc", "http", "telemetry"))
        return Running(pid, str(said["lake"]), settings.parent, ports, bool(said["stop_without_leases"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None

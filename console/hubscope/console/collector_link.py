"""How the command line sees a collector: is one there, whose is it, has it written what it accepted."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from hubscope.collector.configuration.addresses import Address

CONNECT_TIMEOUT_S = 0.5  # loopback answers in under a millisecond; half a second is a machine under load
HEALTH_TIMEOUT_S = 2.0


def listening(address: Address) -> bool:
    """Whether something accepts connections there."""
    try:
        with closing(socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S)):
            return True
    except OSError:
        return False


def owner(port: int) -> str | None:
    """`name (pid n)` of the process that listens on a local port; None where the system does not tell us."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None


def health(address: Address) -> dict[str, Any] | None:
    """What a hubscope collector's `/healthz` says; None where nothing answers or what answers is something else."""
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=HEALTH_TIMEOUT_S) as response:
            body = response.read(1 << 20)
    except urllib.error.HTTPError as error:
        body = error.read(1 << 20)  # an unhealthy collector answers 503 with the same body
    except (OSError, ValueError):
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def recorded(state: Path) -> dict[str, Any] | None:
    """What the collector of this lake wrote about itself (`collector.json`), if its process is alive."""
    import psutil

    try:
        found = json.loads((state / "collector.json").read_text("utf-8"))
        pid = int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if psutil.pid_exists(pid) else None


def is_healthy(answer: dict[str, Any] | None) -> bool:
    """Whether a `/healthz` answer says that the collector works."""
    return answer is not None and str(answer.get("status", "")).lower() in ("ok", "healthy", "ready")

"""How the command line sees a collector: is one there, whose is it, has it written what it accepted."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.values import is_loopback
from hubscope.collector.log.wal import sealed_segments, segment_number

LAKE: Final = "lake"  # the name of the lake's exporter, and of its cursor

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


def health(address: Address, state: Path | None = None) -> dict[str, Any] | None:
    """What a hubscope collector's `/healthz` says; None where nothing answers or what answers is something else.

    A collector with bearer tokens tells strangers little; with its `state` folder, which only its owner can read, all.
    """
    body = ask(address, "/healthz", state)
    try:
        found = json.loads(body) if body is not None else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def ask(address: Address, path: str, state: Path | None = None) -> bytes | None:
    """The body of a telemetry answer, an unhealthy collector's 503 included; None where nothing answers."""
    token, tls = _access(state)
    request = urllib.request.Request(f"{'https' if tls else 'http'}://{address}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    context = ssl._create_unverified_context() if tls else None
    try:
        with urllib.request.urlopen(request, timeout=HEALTH_TIMEOUT_S, context=context) as response:
            return bytes(response.read(1 << 24))
    except urllib.error.HTTPError as error:
        return bytes(error.read(1 << 20)) if error.code == 503 else None
    except (OSError, ValueError):
        return None


def _access(state: Path | None) -> tuple[str, bool]:
    """A token that the collector of this state folder takes, and whether its telemetry speaks TLS."""
    try:
        settings = json.loads(_settings(state).read_text("utf-8")) if state is not None else {}
        security = settings.get("security", {})
        host = settings.get("telemetry", [""])[0]
        tokens = [*security.get("bearer_tokens", ()), ""]
        return str(tokens[0]), bool(security.get("cert_file")) and bool(host) and not is_loopback(host)
    except (OSError, ValueError, AttributeError, IndexError, TypeError):
        return "", False


def _settings(state: Path) -> Path:
    """The settings of the running collector: those in memory where its disk had no room for them."""
    from hubscope.console import other_collectors

    running = None if (state / "collector.json").exists() else other_collectors.without_room(state)
    return running.settings if running is not None else state / "settings.json"


def recorded(state: Path) -> dict[str, Any] | None:
    """What the collector of this lake wrote about itself (`collector.json`), if its process is alive; where its disk
    had no room for that, what it was started with."""
    from hubscope.collector import leases

    path = state / "collector.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        pid = int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return _of_process(state)
    return found if leases.is_alive(pid, path) else _of_process(state)


def _of_process(state: Path) -> dict[str, Any] | None:
    """The same of a collector that was started on a full disk."""
    import psutil

    from hubscope.console import other_collectors

    running = other_collectors.without_room(state)
    if running is None:
        return None
    try:
        pid = psutil.Process(running.pid).ppid()
    except psutil.Error:
        return None
    of_it = {"lake": running.lake, "state": str(running.state)}
    return {"pid": pid, **running.addresses, "addresses": running.addresses, **of_it}


@dataclass(frozen=True)
class Waiting:
    """What the log holds that somebody has not got yet."""

    lake: tuple[Path, ...]  # the sealed segments that are not in the lake
    destinations: dict[str, int]  # of those behind: name -> segments not passed on


def waiting(state: Path) -> Waiting:
    """What waits in the log beside a lake, by the cursors of the exporters that its collector has or had."""
    segments = sealed_segments(state / "wal")
    try:
        exporters = set(json.loads((state / "worker.json").read_text("utf-8"))["exporters"])
    except (OSError, ValueError, KeyError, TypeError):
        exporters = set()  # no worker has run yet
    behind = {
        name: sum(segment_number(path) > last for path in segments)
        for name in sorted(exporters - {LAKE})
        if (last := _cursor(state, name)) is not None
    }
    written = _cursor(state, LAKE) or 0
    return Waiting(
        tuple(path for path in segments if segment_number(path) > written), {name: n for name, n in behind.items() if n}
    )


def _cursor(state: Path, name: str) -> int | None:
    """The number of the last segment that an exporter has; None where nothing says it."""
    try:
        return int((state / "cursors" / quote(name, safe="")).read_text("ascii"))
    except (OSError, ValueError):
        return None


def is_healthy(answer: dict[str, Any] | None) -> bool:
    """Whether a `/healthz` answer says that the collector works."""
    return answer is not None and str(answer.get("status", "")).lower() in ("ok", "healthy", "ready")

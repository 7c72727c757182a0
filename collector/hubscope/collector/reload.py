"""What a reload changes: which settings count at once, for which process, and which need a restart."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from hubscope.collector.configuration.settings import KEYS, CollectorSettings

# Sockets, folders and what their servers were made with: these stay as they are until a restart.
NEED_RESTART: Final = ("lake", "state_dir", "grpc", "http", "telemetry", "stop_without_leases")
# The front and the supervisor take these from the new settings alone; a change of any other also renews the worker.
FRONT_ONLY: Final = ("security", "flush_interval_s", "segment_size_bytes", "stop_grace_s")


class Plan(NamedTuple):
    """The settings from now on, whether the worker must start anew for them, and what waits for a restart."""

    settings: CollectorSettings
    renew_worker: bool
    waiting: tuple[str, ...]  # paths in the configuration file


def plan(current: CollectorSettings, fresh: CollectorSettings, *, rules_changed: bool) -> Plan:
    """What changes between the settings as they were asked for and as they are asked for now."""
    keep: dict[str, Any] = {name: getattr(current, name) for name in NEED_RESTART}
    waiting = [_path(name) for name in NEED_RESTART if getattr(fresh, name) != keep[name]]
    if fresh.limits.request_size_bytes != current.limits.request_size_bytes:  # gRPC's core is told it once
        keep["limits"] = replace(fresh.limits, request_size_bytes=current.limits.request_size_bytes)
        waiting.append(_path("limits.request_size_bytes"))
    now, then = fresh.security, current.security
    for part in ("cert_file", "client_ca_file"):  # other files are taken at once; a server with TLS cannot go without
        if bool(getattr(now, part)) != bool(getattr(then, part)):
            keep["security"] = replace(
                now, cert_file=then.cert_file, key_file=then.key_file, client_ca_file=then.client_ca_file
            )
            waiting.append(_path(f"security.{part}"))
    settings = replace(fresh, **keep)
    changed = [f.name for f in fields(settings) if getattr(settings, f.name) != getattr(current, f.name)]
    renew = rules_changed or any(name not in FRONT_ONLY for name in changed)
    return Plan(settings, renew, tuple(waiting))


def effect(field: str) -> str:
    """What a reload does with a change of this field, for the reference."""
    group = field.partition(".")[0]
    if group in NEED_RESTART or field == "limits.request_size_bytes":
        return "needs a restart"
    if field in ("security.cert_file", "security.key_file", "security.client_ca_file"):
        return "at once, its content too; with or without it at all: needs a restart"
    return "at once" if group in FRONT_ONLY else "at once; the worker starts anew"


def digest(path: str | None) -> str:
    """Of a file's content; empty where there is none."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""


def _path(field: str) -> str:
    return next((key.path for key in KEYS if key.field == field), field)

"""What a collector does now, from two looks at it: rates, refusals, how far each exporter is behind, sizes, memory."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hubscope.console import collector_link, lake_checks
from hubscope.console.options import is_url, state_dir

SIGNALS: Final = {"spans": "spans", "metric_points": "points", "log_records": "logs"}  # as counted -> as shown
_SAMPLE: Final = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Samples = dict[str, list[tuple[dict[str, str], float]]]


@dataclass(frozen=True)
class Look:
    """One look. `health` is None where no collector runs or it does not answer; `samples` is its `/metrics`."""

    at_s: float  # of a clock that only goes forward
    time: str  # RFC 3339
    health: dict[str, Any] | None
    samples: Samples
    lake_size_bytes: int | None  # None where the lake is a URL
    lake_files: int | None
    lake_written_age_s: float | None  # since something was last written to a table


@dataclass(frozen=True)
class Exporter:
    name: str
    queue_age_s: float
    queue_size_bytes: int
    last_error: str
    kept_segments: int = 0  # of these, processed and on disk, while the lake is away
    kept_size_bytes: int = 0  # of their rows


@dataclass(frozen=True)
class View:
    """What is shown of a look and the one before it. Rates are a second; None where there was no look before."""

    time: str
    status: str
    reason: str | None
    rates: dict[str, float] | None  # spans, points, logs
    refused: dict[str, float] | None
    accepted: dict[str, int]
    exporters: tuple[Exporter, ...]
    log_size_bytes: int | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    cpu_share: float | None  # of one core, all processes
    lake_size_bytes: int | None
    lake_files: int | None
    lake_written_age_s: float | None
    dead_letters: int
    redactions: int | None  # None where the collector counts none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def look(lake: str) -> Look:
    """Ask the collector of this lake, and measure the lake's folder."""
    state = state_dir(lake)
    record = collector_link.recorded(state) if state is not None else None
    address = lake_checks.telemetry_address(record) if record else None
    health, samples = None, {}
    if address is not None and state is not None:
        health = collector_link.health(address, state)
        text = collector_link.ask(address, "/metrics", state) if health is not None else None
        samples = parse((text or b"").decode("utf-8", "replace"))
    size_bytes, files, written_age_s = (None, None, None) if is_url(lake) else _measure(Path(lake))
    return Look(time.monotonic(), _now(), health, samples, size_bytes, files, written_age_s)


def view(now: Look, before: Look | None) -> View:
    """What to show. A collector that was started anew in between counts from nothing."""
    health = now.health or {}
    accepted = {shown: int(total(now.samples, f"otelcol_receiver_accepted_{name}")) for name, shown in SIGNALS.items()}
    cpu = rate(now, before, "otelcol_process_cpu_seconds")
    exporters = tuple(
        Exporter(
            name,
            value(now.samples, "hubscope_exporter_queue_age_seconds", exporter=name),
            int(value(now.samples, "otelcol_exporter_queue_size", exporter=name)),
            str(said.get("last_error") or ""),
            int(said.get("kept_segments") or 0),
            int(said.get("kept_bytes") or 0),
        )
        for name, said in sorted((health.get("exporters") or {}).items())
    )
    redacting = [name for name in now.samples if "redact" in name]
    return View(
        time=now.time,
        status=str(health.get("status", "not running")),
        reason=health.get("reason"),
        rates=_rates(now, before, "accepted"),
        refused=_rates(now, before, "refused"),
        accepted=accepted,
        exporters=exporters,
        log_size_bytes=health.get("log_bytes"),
        memory_bytes=health.get("memory_bytes"),
        memory_limit_bytes=int(value(now.samples, "hubscope_memory_limit_bytes")) or None,
        cpu_share=cpu,
        lake_size_bytes=now.lake_size_bytes,
        lake_files=now.lake_files,
        lake_written_age_s=now.lake_written_age_s,
        dead_letters=int(value(now.samples, "hubscope_dead_letters")),
        redactions=int(sum(total(now.samples, name) for name in redacting)) if redacting else None,
    )


def parse(text: str) -> Samples:
    """The samples of a Prometheus text."""
    found: Samples = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is not None:
            labels = {name: _plain(content) for name, content in _LABEL.findall(match["labels"] or "")}
            found.setdefault(match["name"], []).append((labels, float(match["value"])))
    return found


def total(samples: Samples, name: str) -> float:
    return sum(number for _, number in samples.get(name, ()))


def value(samples: Samples, name: str, **labels: str) -> float:
    """The first sample with these labels; 0 where there is none."""
    found = (n for given, n in samples.get(name, ()) if all(given.get(k) == v for k, v in labels.items()))
    return next(found, 0.0)


def rate(now: Look, before: Look | None, name: str) -> float | None:
    """Growth a second of a counter, over all its labels."""
    if before is None or name not in now.samples or now.at_s <= before.at_s:
        return None
    grown = total(now.samples, name) - total(before.samples, name)
    return (grown if grown >= 0 else total(now.samples, name)) / (now.at_s - before.at_s)


def _rates(now: Look, before: Look | None, what: str) -> dict[str, float] | None:
    found = {shown: rate(now, before, f"otelcol_receiver_{what}_{name}") for name, shown in SIGNALS.items()}
    return {shown: r for shown, r in found.items() if r is not None} or None


def _measure(lake: Path) -> tuple[int, int, float | None]:
    """(bytes, files, seconds since the last commit) of the tables in a folder."""
    size_bytes, files, newest_s = 0, 0, 0.0
    for folder, names, content in os.walk(lake):
        names[:] = [name for name in names if name != ".state"]
        for name in content:
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:
                continue  # compacted away meanwhile
            size_bytes += stat.st_size
            files += name.endswith(".parquet")
            if folder.endswith("_delta_log") and name.endswith(".json"):
                newest_s = max(newest_s, stat.st_mtime)
    return size_bytes, files, max(0.0, time.time() - newest_s) if newest_s else None


def _plain(content: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], content)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

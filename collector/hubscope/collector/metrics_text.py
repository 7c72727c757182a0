"""The text of `/metrics`.

Names and labels are the stock Collector's where it has them (compared with Collector 0.140: `receiver`, `transport`,
`exporter`; counters without `_total`, as it writes them by default); ours begin with `hubscope_`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.log.wal import sealed_segments, segment_number
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.intake import Intake
from hubscope.collector.receivers.memory import Memory, collector_pids

_ITEMS: Final = ("spans", "metric_points", "log_records")
TRACES, LOGS = "otel_traces", "otel_logs"  # not from lake_schema, which loads Arrow: the front has none
Sample = tuple[dict[str, str], float]


def exposition(
    settings: CollectorSettings,
    intake: Intake,
    counters: Counters,
    memory: Memory,
    worker: dict[str, Any],
    worker_age_s: float,
    processes: Processes,
    started_s: float,
) -> str:
    """Everything, ending in a newline. `worker` is what worker.json says."""
    lines: list[str] = []
    segments = _sizes(settings)
    state_dir = Path(settings.state_dir)
    _receivers(lines, counters)
    _exporters(lines, settings, intake, worker, segments)
    _processes(lines, processes, memory, settings, worker.get("pid"), started_s)
    oldest_s = max((age_s for _, _, age_s in segments), default=0.0)
    for name, kind, text, value in (
        ("hubscope_receiver_repeated_requests_total", "counter", "The log had them.", counters.repeated_requests),
        ("hubscope_log_segments", "gauge", "Sealed segments that some exporter has not got yet.", len(segments)),
        ("hubscope_log_size_bytes", "gauge", "Size of the write-ahead log.", intake.log_bytes),
        ("hubscope_log_limit_bytes", "gauge", "log.max_size.", settings.limits.log_size_bytes),
        ("hubscope_log_age_seconds", "gauge", "Age of the oldest sealed segment.", oldest_s),
        ("hubscope_log_written_bytes_total", "counter", "Bytes written to the log.", counters.log_bytes),
        ("hubscope_log_syncs_total", "counter", "Group commits.", counters.log_syncs),
        ("hubscope_log_failures_total", "counter", "Writes that the disk refused.", counters.log_failures),
        ("hubscope_log_torn_bytes_total", "counter", "Half-written bytes cut off at start.", counters.torn_bytes),
        ("hubscope_log_waiting_bytes", "gauge", "Requests waiting for the disk.", intake.waiting_bytes),
        ("hubscope_worker_batches_total", "counter", "Segments the worker handed over.", worker.get("batches", 0)),
        ("hubscope_worker_age_seconds", "gauge", "Since the worker last spoke.", min(worker_age_s, 1e9)),
        ("hubscope_dead_letters", "gauge", "Requests set aside as unprocessable.", worker.get("dead_letters", 0)),
        ("hubscope_worker_restarts_total", "counter", "Starts after the first.", _restarts(state_dir, "worker")),
        ("hubscope_front_restarts_total", "counter", "Starts after the first.", _restarts(state_dir, "front")),
    ):
        _family(lines, name, kind, text, [({}, value)])
    rows = [({"table": table}, n) for table, n in sorted(worker.get("rows", {}).items())]
    _family(lines, "hubscope_lake_rows_total", "counter", "Rows written to the lake.", rows)
    _lake(lines, worker.get("lake", {}))
    failures = [({"processor": name}, n) for name, n in sorted(worker.get("processor_failures", {}).items())]
    text = "Segments of which a processor derived nothing, because it failed."
    _family(lines, "hubscope_processor_failures_total", "counter", text, failures)
    for group, values in sorted(worker.get("processors", {}).items()):  # a processor's own counts, by their names
        for name, value in sorted(values.items()) if isinstance(values, dict) else ():
            if _is_number(value):
                full = f"hubscope_processor_{group}_{name}_total"
                _family(lines, full, "counter", f"Counted by the processor {group}.", [({}, float(value))])
    return "\n".join(lines) + "\n"


class Processes:
    """CPU time of the collector's processes, those that have ended included: a counter that never falls."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self._ended_s = 0.0

    def cpu_s(self) -> dict[int, float]:
        """Of each process that runs; `total_s` counts the others too."""
        found: dict[int, float] = {}
        for pid in collector_pids():
            try:
                times = psutil.Process(pid).cpu_times()
                found[pid] = times.user + times.system
            except psutil.Error:
                continue  # it has just ended; its restart is counted
        self._ended_s += sum(value for pid, value in self._last.items() if pid not in found)
        self._last = found
        return found

    def total_s(self) -> float:
        return self._ended_s + sum(self._last.values())


def _receivers(lines: list[str], counters: Counters) -> None:
    for items in _ITEMS:
        for name, counts, what in (
            ("accepted", counters.accepted, "made durable and acknowledged"),
            ("refused", counters.refused, "told to come again later"),
        ):
            samples = [({"receiver": "otlp", "transport": t}, counts[items, t]) for t in ("grpc", "http")]
            text = f"{items.replace('_', ' ').capitalize()} {what}."
            _family(lines, f"otelcol_receiver_{name}_{items}", "counter", text, samples)
    outcomes = [({"transport": t, "outcome": o}, n) for (t, o), n in sorted(counters.requests.items())]
    _family(lines, "hubscope_receiver_requests_total", "counter", "Requests by their outcome.", outcomes)


def _exporters(
    lines: list[str],
    settings: CollectorSettings,
    intake: Intake,
    worker: dict[str, Any],
    segments: list[tuple[int, int, float]],
) -> None:
    exporters: dict[str, Any] = worker.get("exporters", {})
    named = sorted(exporters.items())
    for items in _ITEMS:
        for name, what in (("sent", "delivered"), ("send_failed", "given up for good")):
            found = [(n, _items(n, e, name, items, worker)) for n, e in named]
            samples = [({"exporter": n}, count) for n, count in found if count is not None]
            text = f"{items.replace('_', ' ').capitalize()} {what}."
            _family(lines, f"otelcol_exporter_{name}_{items}", "counter", text, samples)
    sizes, ages, behind, bounds = [], [], [], []
    for name, exporter in named:
        cursor = int(exporter.get("cursor", 0))
        ahead = [(size, age_s) for number, size, age_s in segments if number > cursor]
        label = {"exporter": name}
        waiting = exporter.get("waiting_bytes")  # of one that takes rows: its own files, not the log's
        sizes.append((label, float(sum(size for size, _ in ahead) if waiting is None else waiting)))
        ages.append((label, max((age_s for _, age_s in ahead), default=0.0)))
        behind.append((label, float(max(0, intake.writer.segment - 1 - cursor))))
        bounds.append((label, float(exporter.get("bound_bytes") or settings.limits.log_size_bytes)))
    _family(lines, "otelcol_exporter_queue_size", "gauge", "Bytes of the log that an exporter has to take.", sizes)
    _family(lines, "otelcol_exporter_queue_capacity", "gauge", "Bytes that may wait for an exporter.", bounds)
    _family(lines, "hubscope_exporter_queue_segments", "gauge", "Segments an exporter has to take.", behind)
    _family(lines, "hubscope_exporter_queue_age_seconds", "gauge", "Age of the oldest of them.", ages)
    dropped = [
        ({"exporter": n, "reason": reason}, float(count))
        for n, e in named
        for reason, count in sorted((e.get("dropped_by_reason") or {"refused": e.get("dropped", 0)}).items())
    ]
    text = "Requests (rows, where an exporter takes rows) given up for good: refused, too old or too much waiting."
    _family(lines, "hubscope_exporter_dropped_requests_total", "counter", text, dropped)
    for key, kind, metric, text in (
        ("sent", "counter", "hubscope_exporter_sent_requests_total", "Requests (or rows) handed on."),
        ("failed", "counter", "hubscope_exporter_failed_attempts_total", "Attempts that failed; they are repeated."),
        ("rejected_items", "counter", "hubscope_exporter_rejected_items_total", "Refused by partial success."),
        ("waiting_bytes", "gauge", "hubscope_exporter_waiting_bytes", "Of the files that wait for an exporter."),
        ("kept_segments", "gauge", "hubscope_exporter_kept_segments", "Processed, on disk while the lake is away."),
        ("kept_bytes", "gauge", "hubscope_exporter_kept_bytes", "Size of their rows."),
        ("cursor", "gauge", "hubscope_exporter_cursor", "Number of the last segment an exporter has."),
    ):
        counts = [({"exporter": n}, float(e[key])) for n, e in named if _is_number(e.get(key))]
        _family(lines, metric, kind, text, counts)


def _lake(lines: list[str], lake: dict[str, Any]) -> None:
    """What `exporters.lake_upkeep` last measured and has dropped since the worker began."""
    tables, dropped = sorted(lake.get("tables", {}).items()), sorted(lake.get("dropped", {}).items())
    files = [({"table": table}, of_table["files"]) for table, of_table in tables]
    _family(lines, "hubscope_lake_files", "gauge", "Files of the lake's newest version.", files)
    sizes: list[Sample] = []
    for table, of_table in tables:
        cold_bytes = of_table["cold_size_bytes"]
        sizes.append(({"table": table, "tier": "warm"}, of_table["size_bytes"] - cold_bytes))
        sizes.append(({"table": table, "tier": "cold"}, cold_bytes))
    _family(lines, "hubscope_lake_size_bytes", "gauge", "Their size.", sizes)
    for what, name in (("rows", "rows"), ("size_bytes", "bytes")):
        text = f"{name.capitalize()} dropped for their age, the lake's size, or a disk that is nearly full."
        counts = [({"reason": reason}, float(of_reason[what])) for reason, of_reason in dropped]
        _family(lines, f"hubscope_lake_dropped_{name}_total", "counter", text, counts)
    low = float(bool(lake.get("low_disk")))
    _family(lines, "hubscope_lake_low_disk", "gauge", "1 where the lake's disk has too little room.", [({}, low)])


def _items(name: str, exporter: dict[str, Any], what: str, items: str, worker: dict[str, Any]) -> float | None:
    """Items of an exporter: those it counts by itself; for the lake the rows that were written, and it gives none up.
    None where nobody counts them: a forwarded request is never decoded."""
    counted = exporter.get(f"{what}_items")
    if isinstance(counted, dict):
        return int(counted.get(items, 0))
    if name != "lake":
        return None
    if what != "sent":
        return 0.0
    rows: dict[str, int] = worker.get("rows", {})
    # By their names: hubscope.lake_schema would load Arrow into the process that acknowledges.
    tables = {"spans": "otel_traces", "log_records": "otel_logs", "metric_points": "otel_metrics_"}
    return sum(n for table, n in rows.items() if table.startswith(tables[items]))


def _processes(
    lines: list[str],
    processes: Processes,
    memory: Memory,
    settings: CollectorSettings,
    worker_pid: Any,
    started_s: float,
) -> None:
    names = {os.getpid(): "front", os.getppid(): "supervisor", worker_pid: "worker"}
    memory.measure()
    cpu = [({"process": names.get(pid, "other"), "pid": str(pid)}, s) for pid, s in processes.cpu_s().items()]
    for name, kind, text, value in (
        ("otelcol_process_uptime", "counter", "Seconds since the front started.", time.time() - started_s),
        ("otelcol_process_cpu_seconds", "counter", "CPU time of all processes.", processes.total_s()),
        ("otelcol_process_memory_rss", "gauge", "Resident memory of all processes, in bytes.", memory.rss_bytes),
        ("hubscope_memory_limit_bytes", "gauge", "limits.memory.", settings.limits.memory_bytes),
        (
            "hubscope_memory_refusal_periods_total",
            "counter",
            "Times that memory began to make it refuse.",
            memory.refusals,
        ),
    ):
        _family(lines, name, kind, text, [({}, value)])
    _family(lines, "hubscope_process_cpu_seconds_total", "counter", "CPU time of each process.", cpu)
    rss = [({"process": names.get(pid, "other"), "pid": str(pid)}, float(n)) for pid, n in memory.by_pid.items()]
    _family(lines, "hubscope_process_memory_bytes", "gauge", "Resident memory of each process.", rss)
    version = {"service_name": "hubscope-collector", "service_version": metadata.version("hubscope")}
    _family(lines, "target_info", "gauge", "Who this is.", [(version, 1)])


def _sizes(settings: CollectorSettings) -> list[tuple[int, int, float]]:
    """(number, bytes, age in s) of the sealed segments."""
    found = []
    for path in sealed_segments(settings.wal_dir):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append((segment_number(path), stat.st_size, max(0.0, time.time() - stat.st_mtime)))
    return found


def _restarts(state_dir: Path, name: str) -> int:
    try:
        return int(json.loads((state_dir / "restarts.json").read_text("utf-8"))[name])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _family(lines: list[str], name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inner = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
        shown = int(value) if float(value).is_integer() else value
        lines.append(f"{name}{{{inner}}} {shown}" if inner else f"{name} {shown}")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""`/metrics` in Prometheus text and `/healthz` in JSON: the front's own counts, and what the worker publishes.

Names are the stock Collector's where it has one (`otelcol_receiver_accepted_spans`, …); ours begin with `hubscope_`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psutil

from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.log.wal import sealed_segments
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.grpc_receiver import is_authorized
from hubscope.collector.receivers.http_receiver import Receive, Scope, Send
from hubscope.collector.receivers.intake import Intake

WORKER_FRESH_S: Final = 5.0  # it publishes twice a second; a worker that writes a large batch may skip a few
_ITEMS: Final = ("spans", "metric_points", "log_records")
Sample = tuple[dict[str, str], float]


class Telemetry:
    """An ASGI application over the front's state. A failure here never reaches the receivers."""

    def __init__(self, settings: CollectorSettings, intake: Intake, counters: Counters) -> None:
        self._settings = settings
        self._intake = intake
        self._counters = counters
        self._started_s = time.time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        tokens = self._settings.security.bearer_tokens
        headers = dict(scope["headers"])
        code, content_type, body = 404, "text/plain; charset=utf-8", b"there are /metrics and /healthz here\n"
        if scope["method"] not in ("GET", "HEAD"):
            code, body = 405, b"use GET\n"
        elif tokens and not is_authorized(headers.get(b"authorization", b"").decode("latin-1"), tokens):
            code, body = 401, b"a bearer token is needed\n"
        elif scope["path"] == "/metrics":
            code, content_type, body = 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics().encode()
        elif scope["path"] == "/healthz":
            health = self.health()
            code, content_type = (200 if health["ready"] else 503), "application/json"
            body = json.dumps(health).encode() + b"\n"
        more = [(b"allow", b"GET, HEAD")] if code == 405 else []
        length = (b"content-length", str(len(body)).encode())
        start = [(b"content-type", content_type.encode()), length, *more]
        await send({"type": "http.response.start", "status": code, "headers": start})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def health(self) -> dict[str, Any]:
        """Whether requests are taken now, and how far everything is behind them."""
        worker, age_s = self._worker()
        refusal = self._intake.refusal()
        segments = sealed_segments(self._settings.wal_dir)
        last = self._intake.writer.last_sealed_unix_nano
        ready = refusal is None
        exporters = worker.get("exporters", {})
        unwritten = str(exporters.get("lake", {}).get("last_error") or "")
        return {
            # degraded: what comes is taken and is safe in the log, but does not get into the lake now
            "status": "refusing" if not ready else "degraded" if unwritten else "ready",
            "ready": ready,
            "reason": (unwritten or None) if refusal is None else refusal.message,
            "pid": os.getpid(),
            "lake": self._settings.lake,
            "state": self._settings.state_dir,
            "queue_segments": len(segments),
            "queue_age_s": self._queue_age_s(segments),
            "log_bytes": self._intake.log_bytes,
            "last_segment_sealed_unix_nano": last or None,
            "worker": {"pid": worker.get("pid"), "alive": age_s < WORKER_FRESH_S, "age_s": round(age_s, 3)},
            "exporters": exporters,
        }

    def metrics(self) -> str:
        """Everything countable, as Prometheus reads it."""
        counters, worker = self._counters, self._worker()[0]
        lines: list[str] = []
        for items in _ITEMS:
            for name, counts in (("accepted", counters.accepted), ("refused", counters.refused)):
                samples = [({"receiver": "otlp", "transport": t}, counts[items, t]) for t in ("grpc", "http")]
                what = {"accepted": "made durable and acknowledged", "refused": "told to come again later"}[name]
                _family(
                    lines, f"otelcol_receiver_{name}_{items}", "counter", f"{items.replace('_', ' ')} {what}.", samples
                )
        outcomes = [({"transport": t, "outcome": o}, n) for (t, o), n in sorted(counters.requests.items())]
        _family(lines, "hubscope_receiver_requests", "counter", "Requests by their outcome.", outcomes)
        segments = sealed_segments(self._settings.wal_dir)
        for name, kind, text, value in (
            ("hubscope_receiver_repeated_requests", "counter", "The log had them already.", counters.repeated_requests),
            ("hubscope_log_segments", "gauge", "Sealed segments that some exporter has not got yet.", len(segments)),
            ("hubscope_log_bytes", "gauge", "Size of the write-ahead log.", self._intake.log_bytes),
            ("hubscope_log_age_seconds", "gauge", "Age of the oldest sealed segment.", self._queue_age_s(segments)),
            ("hubscope_log_written_bytes", "counter", "Bytes written to the log.", counters.log_bytes),
            ("hubscope_log_syncs", "counter", "Group commits.", counters.log_syncs),
            ("hubscope_log_failures", "counter", "Writes that the disk refused.", counters.log_failures),
            ("hubscope_log_torn_bytes", "counter", "Half-written bytes cut off at the start.", counters.torn_bytes),
            ("hubscope_log_waiting_bytes", "gauge", "Requests waiting for the disk.", self._intake.waiting_bytes),
            ("hubscope_worker_batches", "counter", "Segments the worker has handed over.", worker.get("batches", 0)),
            ("hubscope_dead_letters", "gauge", "Requests set aside as unprocessable.", worker.get("dead_letters", 0)),
            ("hubscope_worker_restarts", "counter", "Starts after the first.", self._restarts("worker")),
            ("hubscope_front_restarts", "counter", "Starts after the first.", self._restarts("front")),
            ("otelcol_process_uptime", "counter", "Seconds since the front started.", time.time() - self._started_s),
        ):  # fmt: skip
            _family(lines, name, kind, text, [({}, value)])
        rows = [({"table": table}, n) for table, n in sorted(worker.get("rows", {}).items())]
        _family(lines, "hubscope_lake_rows", "counter", "Rows written to the lake.", rows)
        self._exporters(lines, worker.get("exporters", {}))
        self._processes(lines, worker.get("pid"))
        kpis = [
            ({k: str(kpi.get(k) or "") for k in ("name", "service", "target", "status")}, float(kpi["value"]))
            for kpi in worker.get("kpis", ())
            if isinstance(kpi.get("value"), int | float)
        ]
        _family(lines, "hubscope_kpi", "gauge", "The last value of a KPI, in its own unit.", kpis)
        return "\n".join(lines) + "\n"

    def _exporters(self, lines: list[str], exporters: dict[str, Any]) -> None:
        last = self._intake.writer.segment - 1
        for key, kind, name, text in (
            ("sent", "counter", "hubscope_exporter_sent", "Sent: requests handed on."),
            ("failed", "counter", "hubscope_exporter_send_failed", "Attempts that failed; they are repeated."),
            ("dropped", "counter", "hubscope_exporter_dropped", "Given up for good."),
            ("cursor", "gauge", "hubscope_exporter_cursor", "Number of the last segment an exporter has."),
        ):  # fmt: skip
            samples = [({"exporter": n}, float(e[key])) for n, e in sorted(exporters.items()) if _is_number(e.get(key))]
            _family(lines, name, kind, text, samples)
        waiting = [({"exporter": n}, max(0, last - int(e.get("cursor", last)))) for n, e in sorted(exporters.items())]
        _family(lines, "otelcol_exporter_queue_size", "gauge", "Segments an exporter has still to take.", waiting)

    def _processes(self, lines: list[str], worker_pid: Any) -> None:
        memory: list[Sample] = []
        cpu: list[Sample] = []
        for name, pid in (("front", os.getpid()), ("worker", worker_pid)):
            try:
                process = psutil.Process(pid) if isinstance(pid, int) else None
                if process is not None:
                    times = process.cpu_times()
                    memory.append(({"process": name}, process.memory_info().rss))
                    cpu.append(({"process": name}, times.user + times.system))
            except psutil.Error:
                continue  # it has just died; its restart is counted
        _family(lines, "otelcol_process_memory_rss", "gauge", "Resident memory in bytes.", memory)
        _family(lines, "otelcol_process_cpu_seconds", "counter", "CPU time.", cpu)

    def _worker(self) -> tuple[dict[str, Any], float]:
        """What the worker last said, and how old that is; nothing and infinitely old where it never spoke."""
        path = Path(self._settings.state_dir) / "worker.json"
        try:
            said = json.loads(path.read_text("utf-8"))
            return (said if isinstance(said, dict) else {}), max(0.0, time.time() - path.stat().st_mtime)
        except (OSError, ValueError):
            return {}, 1e9

    def _restarts(self, name: str) -> int:
        try:
            found = json.loads((Path(self._settings.state_dir) / "restarts.json").read_text("utf-8"))
            return int(found[name])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _queue_age_s(self, segments: list[Path]) -> float:
        for path in segments:
            try:
                return max(0.0, time.time() - path.stat().st_mtime)
            except FileNotFoundError:
                continue
        return 0.0


def _family(lines: list[str], name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inner = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
        lines.append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

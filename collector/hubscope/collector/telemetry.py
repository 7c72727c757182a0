"""`/metrics` and `/metrics/kpis` for Prometheus, `/healthz` in JSON: what the front counts, what the worker publishes.

Who may ask: where the collector has bearer tokens, `/metrics` and the whole of `/healthz` need one; without it
`/healthz` still says `status` and `ready`, which is what a load balancer or a container's probe asks for. Neither ever
holds a token, a header or a request's content.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from hubscope.collector import metrics_text
from hubscope.collector.configuration.settings import CollectorSettings, Security
from hubscope.collector.configuration.values import is_loopback
from hubscope.collector.live import Live
from hubscope.collector.log.wal import sealed_segments, segment_number
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.grpc_receiver import is_authorized
from hubscope.collector.receivers.http_receiver import Receive, Scope, Send
from hubscope.collector.receivers.intake import Intake
from hubscope.collector.receivers.memory import Memory
from hubscope.collector.scrape import answer as scrape_answer

WORKER_FRESH_S: Final = 5.0  # it publishes twice a second; a worker that writes a large batch may skip a few
WORKER_DEAD_S: Final = (
    30.0  # starting it anew takes 1 to 3 s: so long without a word is a worker that does not come back
)
BRIEF: Final = ("status", "ready")  # what everybody may know


class Telemetry:
    """An ASGI application over the front's state. A failure here never reaches the receivers."""

    def __init__(self, live: Live, intake: Intake, counters: Counters, memory: Memory) -> None:
        self._live = live
        self._intake = intake
        self._counters = counters
        self._memory = memory
        self._processes = metrics_text.Processes()
        self._started_s = time.time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        tokens = self._live.settings.security.bearer_tokens
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        is_known = not tokens or is_authorized(given, tokens)
        more: list[tuple[bytes, bytes]] = []
        code, content_type, body = (
            404,
            "text/plain; charset=utf-8",
            b"there are /metrics, /metrics/kpis and /healthz here\n",
        )
        if scope["method"] not in ("GET", "HEAD"):
            code, body, more = 405, b"use GET\n", [(b"allow", b"GET, HEAD")]
        elif scope["path"] == "/healthz":
            health = self.health()
            code, content_type = (200 if health["ready"] else 503), "application/json"
            body = json.dumps(health if is_known else {key: health[key] for key in BRIEF}).encode() + b"\n"
        elif not is_known:
            code, body, more = 401, b"a bearer token is needed\n", [(b"www-authenticate", b"Bearer")]
        elif scope["path"] == "/metrics/kpis":
            code, content_type, body, more = await self._kpis(scope)
        elif scope["path"] == "/metrics":
            code, content_type, body = 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics().encode()
        length = (b"content-length", str(len(body)).encode())
        start = [(b"content-type", content_type.encode()), length, (b"cache-control", b"no-store"), *more]
        await send({"type": "http.response.start", "status": code, "headers": start})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _kpis(self, scope: Scope) -> tuple[int, str, bytes, list[tuple[bytes, bytes]]]:
        """KPIs, violations and durations, which the worker wrote down."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        settings = self._live.settings
        answer = await scrape_answer.kpis(
            Path(settings.state_dir),
            headers.get(b"accept", ""),
            headers.get(b"accept-encoding", ""),
            0.0 if time.time() - self._started_s < WORKER_DEAD_S else worker_status(settings)[1],
            WORKER_DEAD_S,
        )
        return answer.code, answer.content_type, answer.body, list(answer.headers)

    def health(self) -> dict[str, Any]:
        """Whether requests are taken now, and how far everything is behind them.

        `status` is ok; degraded: what comes is taken, but does not get on: into the lake, for which it is safe in the
        log, or to a destination, for which it waits within its bound or which has refused some of it for good in the
        last five minutes; `reason` says which;
        refusing: senders are told to come later; stopping.
        """
        settings = self._live.settings
        worker, age_s = worker_status(settings)
        refusal = self._intake.refusal()
        segments = sealed_segments(settings.wal_dir)
        exporters = worker.get("exporters", {})
        if refusal is not None:
            reason: str | None = refusal.message
        elif time.time() - age_s < self._started_s and exporters:  # what it says was said before this collector began
            reason = _before_this(exporters)
        else:
            reason = self._degraded(worker, age_s)
        status = "ok" if reason is None else "degraded" if refusal is None else "refusing"
        if self._live.stopping:
            status, reason = "stopping", "the collector is stopping"
        return {
            "status": status,
            "ready": refusal is None and not self._live.stopping,
            "reason": reason,
            "pid": os.getpid(),
            "lake": settings.lake,
            "state": settings.state_dir,
            "queue_segments": len(segments),
            "queue_age_s": queue_age_s(segments),
            "log_bytes": self._intake.log_bytes,
            "memory_bytes": self._memory.counted_bytes(),
            "last_segment_sealed_unix_nano": self._intake.writer.last_sealed_unix_nano or None,
            "worker": {"pid": worker.get("pid"), "alive": age_s < WORKER_FRESH_S, "age_s": round(age_s, 3)},
            "exporters": exporters,
            "processors": worker.get("processors", {}),
            "lake_upkeep": {
                key: worker.get("lake", {}).get(key) or None for key in ("low_disk", "last_drop", "failing")
            },
        }

    def metrics(self) -> str:
        """Everything countable, as Prometheus reads it."""
        settings = self._live.settings
        worker, age_s = worker_status(settings)
        return metrics_text.exposition(
            settings, self._intake, self._counters, self._memory, worker, age_s, self._processes, self._started_s
        )

    def _degraded(self, worker: dict[str, Any], worker_age_s: float) -> str | None:
        exporters = worker.get("exporters", {})
        unwritten = str(exporters.get("lake", {}).get("last_error") or "")
        if unwritten:
            return unwritten
        if min(worker_age_s, time.time() - self._started_s) > WORKER_DEAD_S:
            return "the worker does not run; what is accepted waits in the log"
        for name, exporter in sorted(exporters.items()):
            if not exporter.get("last_error"):
                continue
            if exporter.get("is_failing"):
                return f"{name}: {exporter['last_error']} (what it has to get waits, within its bound)"
            unit = exporter.get("takes", "records").replace("records", "requests")
            refused = f"{exporter.get('dropped', 0)} {unit} and {exporter.get('rejected_items', 0)} items of others"
            return f"{name}: {refused} dropped so far, the last because it refused them: {exporter['last_error']}"
        return worker.get("lake", {}).get("failing") or None


def _before_this(exporters: dict[str, Any]) -> str | None:
    """What is known of the lake while the first worker of this collector starts."""
    error = str(exporters.get("lake", {}).get("last_error") or "")
    begins = "the worker is starting, and what is accepted waits in the log"
    return f"{begins}; the collector before this one could not write: {error}" if error else None


def telemetry_security(settings: CollectorSettings) -> Security | None:
    """The receivers' TLS serves the telemetry too where other machines can reach it; probes of this one need none."""
    return None if is_loopback(settings.telemetry.host) else settings.security


def worker_status(settings: CollectorSettings) -> tuple[dict[str, Any], float]:
    """What the worker last said, and how old that is; nothing and infinitely old where it never spoke."""
    path = Path(settings.state_dir) / "worker.json"
    try:
        said = json.loads(path.read_text("utf-8"))
        return (said if isinstance(said, dict) else {}), max(0.0, time.time() - path.stat().st_mtime)
    except (OSError, ValueError):
        return {}, 1e9


def is_behind(settings: CollectorSettings) -> bool:
    """Whether a sealed segment is not in the lake yet."""
    segments = sealed_segments(settings.wal_dir)
    if not segments:
        return False
    cursor = worker_status(settings)[0].get("exporters", {}).get("lake", {}).get("cursor", 0)
    return any(segment_number(path) > cursor for path in segments)


def queue_age_s(segments: list[Path]) -> float:
    """Age of the oldest sealed segment."""
    for path in segments:
        try:
            return max(0.0, time.time() - path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return 0.0

"""An OTLP/HTTP sink that parses what real processes send, and a way to run such processes."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}


class SentSpan:
    """A span as it arrived, with its resource's attributes."""

    def __init__(self, span: Any, resource: dict[str, Any], scope: str) -> None:
        self.name: str = span.name
        self.kind: int = span.kind
        self.attributes = _attributes(span.attributes)
        self.resource = resource
        self.scope = scope
        self.trace_id: bytes = span.trace_id
        self.span_id: bytes = span.span_id
        self.parent_span_id: bytes = span.parent_span_id
        self.start_ns: int = span.start_time_unix_nano
        self.end_ns: int = span.end_time_unix_nano
        self.status: int = span.status.code

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def __repr__(self) -> str:
        return f"<{self.name} {self.attributes}>"


class Sink:
    """What arrived so far; spans, metrics by name, and events in order of arrival."""

    def __init__(self) -> None:
        self.spans: list[SentSpan] = []
        self.metrics: dict[str, list[Any]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.metric_resources: list[dict[str, Any]] = []
        self.metric_messages: list[Any] = []  # the `ResourceMetrics` of each of these
        self.arrived = threading.Condition()
        self.endpoint = ""
        self.raw = b""

    def take(self, path: str, body: bytes) -> None:
        with self.arrived:
            self.raw += body
            if path.endswith("/traces"):
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    resource = _attributes(group.resource.attributes)
                    for scope in group.scope_spans:
                        self.spans += [SentSpan(span, resource, scope.scope.name) for span in scope.spans]
            elif path.endswith("/metrics"):
                for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.metric_resources.append(_attributes(metrics.resource.attributes))
                    self.metric_messages.append(metrics)
                    for scope_metrics in metrics.scope_metrics:
                        for metric in scope_metrics.metrics:
                            self.metrics.setdefault(metric.name, []).append(metric)
            elif path.endswith("/logs"):
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    for scope_logs in logs.scope_logs:
                        self.events += [(r.event_name, _attributes(r.attributes)) for r in scope_logs.log_records]
            self.arrived.notify_all()

    def named(self, name: str) -> list[SentSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> SentSpan:
        found = self.named(name)
        assert len(found) == 1, f"{name}: {found} among {sorted({s.name for s in self.spans})}"
        return found[0]

    def wait_for(self, holds: Callable[[Sink], bool], timeout_s: float = 20.0) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: holds(self), timeout_s), sorted({s.name for s in self.spans})

    def points(self, name: str) -> list[dict[str, Any]]:
        """The attributes of every point of that metric."""
        found = []
        for metric in self.metrics.get(name, []):
            data = getattr(metric, metric.WhichOneof("data"))
            found += [_attributes(point.attributes) for point in data.data_points]
        return found


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A listening OTLP/HTTP endpoint on a free port of this machine."""
    taken = Sink()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            taken.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # 21 processes with three connections each come at once; the default holds five

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    taken.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield taken
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def scripted_sink() -> Iterator[Callable[..., Any]]:
    """`scripted_sink(hang, delay_s)`: an OTLP/HTTP server that never answers, or late; `requests` has all."""
    closing: list[Callable[[], Any]] = []

    def start(hang: bool, delay_s: float) -> Any:
        over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                made.requests.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                if over.wait(60 if hang else delay_s):
                    return
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            requests: list[tuple[str, bytes]]
            endpoint: str

        made = Server(("127.0.0.1", 0), Handler)
        made.daemon_threads, made.requests = True, []
        made.endpoint = f"http://127.0.0.1:{made.server_address[1]}"
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        closing.extend([over.set, made.shutdown, made.server_close])
        return made

    yield start
    for close in closing:
        close()


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    kept: list[socket.socket] = []
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                kept.append(listener.accept()[0])
            except TimeoutError:
                continue

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    ended.set()
    thread.join(5)
    for connection in (*kept, listener):
        connection.close()


class Finished:
    """A process that has ended."""

    def __init__(self, completed: subprocess.CompletedProcess[str], seconds: float) -> None:
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr
        self.seconds = seconds

    def json(self) -> Any:
        return json.loads(self.out)


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that sets OpenTelemetry or hubscope."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_", "PYTHON"))}


@pytest.fixture
def environ() -> dict[str, str]:
    """This process's environment without anything that sets OpenTelemetry or hubscope."""
    return clean_environment()


@pytest.fixture
def exporting_to() -> Callable[..., dict[str, str]]:
    """The environment of a process that hubscope measures and that sends to an endpoint."""

    def make(endpoint: str, protocol: str = "http/protobuf", **more: str) -> dict[str, str]:
        return {
            **clean_environment(),
            "OTEL_PYTHON_DISTRO": "hubscope",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_SERVICE_NAME": "app",
            **more,
        }

    return make


INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
RunApp = Callable[..., Finished]


@pytest.fixture
def run_app(tmp_path: Path) -> RunApp:
    """Run a program text in a fresh interpreter: under `opentelemetry-instrument`, or plain with `wrapper=()`."""

    def run(
        text: str, environ: dict[str, str], *, wrapper: tuple[str, ...] = (INSTRUMENT,), timeout_s: float = 60
    ) -> Finished:
        app = tmp_path / "app.py"
        app.write_text(text)
        began = time.monotonic()
        completed = subprocess.run(
            [*wrapper, sys.executable, str(app)],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Finished(completed, time.monotonic() - began)

    return run


class Recorded:
    """What our instrumentation records in this process."""

    def __init__(self) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from hubscope.instrumentation import signals

        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._logs = InMemoryLogRecordExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        loggers = LoggerProvider(shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.handles = signals.Handles(
            self.tracer_provider.get_tracer("test"), meters.get_meter("test"), loggers.get_logger("test")
        )

    @property
    def spans(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    def one(self, name: str) -> Any:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(log.log_record.event_name, dict(log.log_record.attributes)) for log in self._logs.get_finished_logs()]

    def metrics(self) -> dict[str, list[Any]]:
        """Data points by metric name."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """hubscope configured in this process, with everything kept in memory."""
    from hubscope.instrumentation import signals
    from hubscope.instrumentation.startup import tracker

    found = Recorded()
    monkeypatch.setattr(signals, "_handles", found.handles)
    monkeypatch.setattr(signals, "_startup_span", None)
    monkeypatch.setattr(tracker, "_current", None)
    return found

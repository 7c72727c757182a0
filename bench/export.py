"""What it costs an application to send spans: ours beside the stock SDK and its OTLP exporters, in the same run.

    python -m bench.export [--runs 5] [--spans 20000] [--skip-stock-exit]

Prints Markdown tables: CPU of a span of five attributes over the whole way in the application (made, queued, written,
sent to a server in another process), what importing an exporter adds, and leaving with 10,000 spans queued while no
collector runs: how long it takes, and how many of them arrive after the next start.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.overhead import Server, _arrived, _base, _server, _table

# It prints CPU µs a span. `how`: none (spans that nobody takes), stock or hubscope.
_LOOP = """
import json, sys, time
how, protocol, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
if how == "hubscope":
    import os
    from hubscope.exporters.delivery.span_batches import SpanBatches, limits
    from hubscope.exporters.delivery.span_exporter import HubscopeSpanExporter
    provider.add_span_processor(SpanBatches(HubscopeSpanExporter(), limits(os.environ)))
elif how != "none":
    if how == "hubscope exporter":
        from hubscope.exporters.delivery.span_exporter import HubscopeSpanExporter as Exporter
    elif protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Exporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Exporter
    provider.add_span_processor(BatchSpanProcessor(Exporter()))
tracer = provider.get_tracer("bench")
attributes = {"app.user": "ada", "app.count": 7, "app.ratio": 0.5, "app.fresh": True, "app.path": "/recall/memories"}
def step():
    with tracer.start_as_current_span("operation", attributes=attributes):
        pass
for _ in range(1000):
    step()
provider.force_flush(20000)
began = time.process_time()
for _ in range(count):
    step()
provider.force_flush(20000)
print((time.process_time() - began) / count * 1e6)
provider.shutdown()
"""

_HOWS = (
    ("spans that nobody takes", "none"),
    ("stock queue and exporter", "stock"),
    ("stock queue, our exporter (`OTEL_TRACES_EXPORTER=hubscope`)", "hubscope exporter"),
    ("our queue and exporter (`hubscope run`)", "hubscope"),
)


def spans(server: Server, runs: int, count: int) -> None:
    """CPU a span over the whole way in the application."""
    for protocol, endpoint in (("http/protobuf", server.http), ("grpc", server.grpc)):
        environ = {
            **_base(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_BSP_MAX_QUEUE_SIZE": str(count * 2),
        }
        best: dict[str, float] = {}
        missing: dict[str, int] = {}
        for _ in range(runs):
            for _, how in _HOWS:
                before = _arrived(server)
                command = [sys.executable, "-c", _LOOP, how, protocol, str(count)]
                done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=300)
                best[how] = min(best.get(how, float("inf")), float(done.stdout))
                if how != "none":
                    missing[how] = count + 1000 - (_arrived(server) - before)
        rows = [
            (
                title,
                f"{best[how]:.1f}",
                f"{best[how] / best['stock']:.2f}",
                f"{best[how] - best['none']:.1f}",
                f"{missing[how]}" if how in missing else "",
            )
            for title, how in _HOWS
        ]
        head = ("", "CPU, µs a span", "/ stock", "added to the span itself, µs", "not arrived")
        _table(f"A span of 5 attributes over {protocol} ({count:,} spans, best of {runs})", head, rows)


def imports(runs: int) -> None:
    """What importing an exporter adds to a process that has the SDK."""
    sdk = "import opentelemetry.sdk.trace.export"
    stock = "opentelemetry.exporter.otlp.proto"
    ours = "hubscope.exporters.delivery"
    programs = (
        ("the SDK alone", sdk),
        ("stock, gRPC", f"{sdk}, {stock}.grpc.trace_exporter"),
        ("stock, HTTP", f"{sdk}, {stock}.http.trace_exporter, requests"),
        ("ours, gRPC", f"{sdk}, {ours}.span_exporter, {ours}.span_batches, {ours}.grpc_sender, grpc"),
        ("ours, HTTP", f"{sdk}, {ours}.span_exporter, {ours}.span_batches, {ours}.http_sender"),
    )
    taken: dict[str, list[float]] = {name: [] for name, _ in programs}
    for _ in range(runs):
        for name, text in programs:
            program = f"import time\nbegan = time.process_time()\n{text}\nprint(time.process_time() - began)"
            done = subprocess.run(
                [sys.executable, "-c", program], env=_base(), capture_output=True, text=True, check=True
            )
            taken[name].append(float(done.stdout) * 1000)
    alone = statistics.median(taken["the SDK alone"])
    rows = [(name, f"{(took := statistics.median(taken[name])):.1f}", f"{took - alone:.1f}") for name, _ in programs]
    _table(f"Importing the span exporter (CPU, median of {runs})", ("imported", "ms", "added, ms"), rows)


_LEAVING = """
import os, sys, time
if sys.argv[1] == "hubscope":
    from hubscope import instrumentation as hub
    hub.configure(service_name="bench")
    hub.interactive()
from opentelemetry import trace
if sys.argv[1] == "stock":
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = trace.get_tracer("bench")
for _ in range(int(sys.argv[2])):
    with tracer.start_as_current_span("operation", attributes={"app.user": "ada", "app.count": 7}):
        pass
print(time.time())
"""


def exits(count: int, with_stock: bool) -> None:
    """A program that makes spans and leaves while nothing listens, or what listens hangs; then another one starts."""
    rows = []
    for state in ("nothing listens", "what listens never answers"):
        for how in ("stock", "hubscope") if with_stock else ("hubscope",):
            with tempfile.TemporaryDirectory() as folder:
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", 0))
                    if state != "nothing listens":
                        listener.listen(64)
                    environ = {
                        **_base(),
                        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}",
                        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                        "OTEL_BSP_MAX_QUEUE_SIZE": str(count * 2),
                        "HUBSCOPE_SPOOL_DIR": folder,
                    }
                    command = [sys.executable, "-c", _LEAVING, how, str(count)]
                    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=300)
                    took_s = time.time() - float(done.stdout)
                kept = sum(int(path.name.split("-")[3]) for path in Path(folder).rglob("traces-*/*.otlp"))
                rows.append((state, how, f"{took_s:.2f}", f"{min(kept, count):,}", _after_next_start(folder, environ)))
    head = ("collector", "", "from the last span to the end, s", "of them kept", "arrived after the next start")
    _table(f"Leaving with {count:,} spans (one run)", head, rows)


def _after_next_start(folder: str, environ: dict[str, str]) -> str:
    """How many spans of the spool a next start brings to a collector at the same address."""
    if not list(Path(folder).rglob("*.otlp")):
        return "0"
    port = environ["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2]
    program = "import sys\nimport bench.export as b\nb.count_spans(int(sys.argv[1]))\n"
    counting = subprocess.Popen(
        [sys.executable, "-c", program, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert counting.stdout is not None
    counting.stdout.readline()
    start = "from hubscope import instrumentation as hub; hub.configure()"
    subprocess.run(
        [sys.executable, "-c", start], env={**environ, "HUBSCOPE_EXIT_TIMEOUT_MS": "10000"}, check=True, timeout=60
    )
    return f"{int(counting.communicate(timeout=30)[0]):,}"


def count_spans(port: int) -> None:
    """Take requests there until standard input ends, then print how many spans of `bench` came."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from typing import Any

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    ids: set[bytes] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("/traces"):
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        ids.update(span.span_id for span in scope.spans if span.name == "operation")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    print(len(ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each row (default 5)")
    parser.add_argument("--spans", type=int, default=20_000, help="spans of each run (default 20000)")
    parser.add_argument("--skip-stock-exit", action="store_true", help="leave out the stock exits")
    chosen = parser.parse_args()
    import opentelemetry.sdk.version as sdk

    print("## Sending from the application\n")
    print(f"Python {platform.python_version()}, SDK {sdk.__version__}, {os.cpu_count()} CPUs, {platform.machine()}.")
    with _server() as server:
        spans(server, chosen.runs, chosen.spans)
    imports(chosen.runs)
    exits(10_000, with_stock=not chosen.skip_stock_exit)


if __name__ == "__main__":
    main()

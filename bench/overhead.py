"""What measuring costs an application: start-up, per span, per query, and leaving, beside the stock OpenTelemetry SDK.

    python -m bench.overhead [--runs 7] [--spans 20000] [--skip-stock-exit]

Prints Markdown tables. Every row of a table is measured in turn within one run, against one local OTLP server in a
process of its own that counts what it is sent; a row whose spans did not all arrive says so. Times of starts are
medians of `--runs` runs in interleaved order; costs per operation are CPU time of the whole process, exporter threads
and the last flush included, less that of the same loop without measuring, best of three processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

OURS = "hubscope_sqlite3,hubscope_pluggy,hubscope_usearch,hubscope_process"


class Server(NamedTuple):
    grpc: str
    http: str


class Arm(NamedTuple):
    """One way to run a program: its name, its environment, and what stands before the interpreter."""

    name: str
    environ: dict[str, str]
    wrapper: tuple[str, ...] = ()


def serve() -> None:
    """The OTLP server: acknowledges everything, counts spans, answers GET /count. Ends with its standard input."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    count = [0]
    lock = threading.Lock()

    def take(path: str, body: bytes) -> bytes:
        if "trace" in path.lower():
            request = ExportTraceServiceRequest.FromString(body)
            spans = sum(len(scope.spans) for group in request.resource_spans for scope in group.scope_spans)
            with lock:
                count[0] += spans
        return b""

    class Services(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            path = details.method
            return grpc.unary_unary_rpc_method_handler(lambda body, _: take(path, body))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(str(count[0]).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    grpc_server = grpc.server(ThreadPoolExecutor(4))
    grpc_server.add_generic_rpc_handlers((Services(),))
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    print(
        json.dumps([f"http://127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_server.server_address[1]}"]), flush=True
    )
    sys.stdin.read()
    grpc_server.stop(None)


@contextmanager
def _server() -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.overhead", "--serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Server(*json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(10)


def _arrived(server: Server) -> int:
    import urllib.request

    with urllib.request.urlopen(f"{server.http}/count", timeout=10) as answer:
        return int(answer.read())


def _base() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_", "PYTHON"))}


def _stock(endpoint: str, protocol: str) -> dict[str, str]:
    return {
        **_base(),
        "OTEL_PYTHON_DISTRO": "distro",
        "OTEL_PYTHON_CONFIGURATOR": "configurator",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": OURS,
        "OTEL_SERVICE_NAME": "bench",
    }


def _hubscope(endpoint: str, protocol: str) -> dict[str, str]:
    return {
        **_base(),
        "OTEL_PYTHON_DISTRO": "hubscope",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_SERVICE_NAME": "bench",
    }


def _launched(endpoint: str, protocol: str) -> dict[str, str]:
    from hubscope.instrumentation.launch import prepare_environment

    return prepare_environment(_base(), service="bench", endpoint=endpoint, protocol=protocol)


def _arms(server: Server) -> tuple[Arm, ...]:
    instrument = (str(Path(sys.executable).with_name("opentelemetry-instrument")),)
    return (
        Arm("plain", _base()),
        Arm("stock, gRPC", _stock(server.grpc, "grpc"), instrument),
        Arm("stock, HTTP", _stock(server.http, "http/protobuf"), instrument),
        Arm("hubscope distro, gRPC", _hubscope(server.grpc, "grpc"), instrument),
        Arm("hubscope distro, HTTP", _hubscope(server.http, "http/protobuf"), instrument),
        Arm("`hubscope run`, gRPC", _launched(server.grpc, "grpc")),
        Arm("`hubscope run`, HTTP", _launched(server.http, "http/protobuf")),
    )


def _timed(arm: Arm, *arguments: str, timeout_s: float = 120) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one process from start to end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*arm.wrapper, sys.executable, *arguments],
        env=arm.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watchdog = threading.Timer(timeout_s, process.kill)
    watchdog.start()
    # Not Popen.wait(timeout): it polls in steps that grow to 50 ms, which is what is to be measured.
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    watchdog.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{arm.name}: the program ended with {process.returncode}")
    return wall, used.ru_utime + used.ru_stime


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def starts(server: Server, runs: int) -> None:
    """`python -c pass` from start to end, exit included."""
    arms = _arms(server)
    walls: dict[str, list[float]] = {arm.name: [] for arm in arms}
    cpus: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for _ in range(runs):
        for arm in arms:
            wall, cpu = _timed(arm, "-c", "pass")
            walls[arm.name].append(wall)
            cpus[arm.name].append(cpu)
    median = statistics.median
    plain_ms = median(walls["plain"]) * 1000
    stock_ms = median(walls["stock, gRPC"]) * 1000 - plain_ms
    rows = []
    for arm in arms:
        wall_ms, cpu_ms = median(walls[arm.name]) * 1000, median(cpus[arm.name]) * 1000
        added = wall_ms - plain_ms
        share = "" if arm.name == "plain" else f"{added / stock_ms:.2f}"
        spread = f"{min(walls[arm.name]) * 1000:.0f} to {max(walls[arm.name]) * 1000:.0f}"
        rows.append((arm.name, f"{wall_ms:.0f}", spread, f"{cpu_ms:.0f}", f"{added:.0f}", share))
    head = ("`python -c pass`", "wall, ms", "min to max", "CPU, ms", "added, ms", "added / stock gRPC")
    _table(f"Start to end of an empty program (median of {runs})", head, rows)


# One program for every arm: `what` says which loop. It prints [CPU µs an operation, spans it made].
_LOOP = """
import json, sqlite3, sys, time
what, setup, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if setup == "stock":
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    if what == "query":
        from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
        SQLite3Instrumentor().instrument()
elif setup == "hubscope":
    from hubscope import instrumentation as hub
    hub.configure()
    hub.interactive()
attributes = {"app.user": "ada", "app.count": 7, "app.ratio": 0.5, "app.fresh": True, "app.path": "/recall/memories"}
if what == "span":
    from opentelemetry import trace
    tracer = trace.get_tracer("bench")
    def step():
        with tracer.start_as_current_span("operation", attributes=attributes):
            pass
elif what == "block":
    from hubscope import instrumentation as hub
    def step():
        with hub.memory_operation("search", store="main", persona="ada"):
            pass
elif what == "query":
    con = sqlite3.connect(":memory:")
    con.execute("create table memories (id integer primary key, text text)")
    con.executemany("insert into memories (text) values (?)", [("x",)] * 100)
    cursor = con.cursor()
    def step():
        cursor.execute("select text from memories where id = ?", (50,)).fetchall()
else:
    import pluggy
    spec, impl = pluggy.HookspecMarker("b"), pluggy.HookimplMarker("b")
    class Specs:
        @spec
        def answer(self, question): ...
    class Plugin:
        @impl
        def answer(self, question): return question
    manager = pluggy.PluginManager("b"); manager.add_hookspecs(Specs); manager.register(Plugin())
    def step():
        manager.hook.answer(question=1)
for _ in range(200):
    step()
if setup != "none":
    from opentelemetry import trace
    trace.get_tracer_provider().force_flush(20000)
began = time.process_time()
for _ in range(count):
    step()
if setup != "none":
    trace.get_tracer_provider().force_flush(20000)
print(json.dumps((time.process_time() - began) / count * 1e6))
"""


def operations(server: Server, spans: int) -> None:
    """CPU an operation, exporting included."""
    environ = {**_hubscope(server.grpc, "grpc"), "OTEL_BSP_MAX_QUEUE_SIZE": str(spans * 2)}
    cases = (
        ("span of 5 attributes", "span", ("stock", "hubscope")),
        ("`hub.memory_operation` block", "block", ("none", "hubscope")),
        ("SQLite query by key, with its span", "query", ("none", "stock", "hubscope")),
        ("pluggy call of 1 µs, metric only", "hook", ("none", "hubscope")),
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "loop.py"
        program.write_text(_LOOP)
        for title, what, setups in cases:
            best: dict[str, float] = {}
            lost = ""
            for _ in range(3):
                for setup in setups:
                    before = _arrived(server)
                    command = [sys.executable, str(program), what, setup, str(spans)]
                    done = subprocess.run(
                        command, env=environ, check=True, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                    )
                    cost = float(json.loads(done.stdout))
                    best[setup] = min(best.get(setup, cost), cost)
                    expected = 0 if setup == "none" or what == "hook" else spans
                    if _arrived(server) - before < expected:
                        lost = " (not every span arrived)"
            base = best.get("none", 0.0)
            stock, ours = best.get("stock"), best["hubscope"] - base
            rows.append(
                (
                    title + lost,
                    f"{base:.1f}" if "none" in best else "",
                    f"{stock - base:.1f}" if stock is not None else "",
                    f"{ours:.1f}",
                    f"{ours / (stock - base):.2f}" if stock is not None else "",
                )
            )
    head = ("operation", "unmeasured, µs", "stock adds, µs", "hubscope adds, µs", "hubscope / stock")
    _table(f"CPU an operation, exported over gRPC ({spans:,} operations, best of 3)", head, rows)


def blocks_off() -> None:
    """A block while nothing is configured."""
    text = (
        "import time\nfrom hubscope import instrumentation as hub\n"
        "hub.task\nn = 200000\nbegan = time.process_time()\n"
        "for _ in range(n):\n    with hub.task('t'): pass\n"
        "print((time.process_time() - began) / n * 1e6)"
    )
    done = subprocess.run([sys.executable, "-c", text], env=_base(), check=True, capture_output=True, text=True)
    _table(
        "Switched off", ("operation", "µs"), [("`with hub.task(…)`, nothing configured", f"{float(done.stdout):.2f}")]
    )


def exits(with_stock: bool) -> None:
    """A program with one span of each signal while nothing listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    text = (
        "import logging\nfrom opentelemetry import metrics, trace\nfrom opentelemetry._logs import get_logger\n"
        "with trace.get_tracer('b').start_as_current_span('s'): pass\n"
        "metrics.get_meter('b').create_counter('c').add(1)\nget_logger('b').emit(body='x')\n"
    )
    instrument = (str(Path(sys.executable).with_name("opentelemetry-instrument")),)
    rows = []
    for protocol in ("grpc", "http/protobuf"):
        with tempfile.TemporaryDirectory() as folder:  # what is kept there is nobody's
            environ = {**_hubscope(endpoint, protocol), "HUBSCOPE_SPOOL_DIR": folder}
            ours, _ = _timed(Arm("", environ, instrument), "-c", text)
        stock = ""
        if with_stock:
            seconds, _ = _timed(Arm("", _stock(endpoint, protocol), instrument), "-c", text)
            stock = f"{seconds:.1f}"
        rows.append((protocol, stock, f"{ours:.1f}"))
    head = ("protocol", "stock, s", "hubscope, s")
    _table("A short program from start to end while no collector runs (one run)", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="runs of each start (default 7)")
    parser.add_argument("--spans", type=int, default=20_000, help="operations of each loop (default 20000)")
    parser.add_argument("--skip-stock-exit", action="store_true", help="leave out the stock exits (about 25 s each)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
        return
    import opentelemetry.sdk.version as sdk

    print("## What measuring costs an application\n")
    print(f"Python {platform.python_version()}, SDK {sdk.__version__}, {os.cpu_count()} CPUs, {platform.machine()}.")
    with _server() as server:
        starts(server, chosen.runs)
        operations(server, chosen.spans)
    blocks_off()
    exits(with_stock=not chosen.skip_stock_exit)


if __name__ == "__main__":
    main()

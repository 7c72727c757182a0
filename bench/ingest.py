"""What the collector takes: spans acknowledged a second, until they can be queried, CPU, memory and bytes on disk.

    python -m bench.ingest [--spans 200000] [--in-flight 8] [--peer auto|none]

Spans of about 370 B with seven attributes, in traces of eight, 64 traces a request, every id random, are sent over gRPC
by a process of its own that built all requests before the clock starts. "Queryable" is when the lake has every row (for
the peer: when the trace sent last is answered by its query API). CPU is of all the server's processes from the first
request until everything is queryable; the machine's cores are shared with the load generator. Prints a Markdown table.

The peer is Jaeger 2 with badger, built by tests/integration/jaeger (`make integration` leaves it there), or named by
JAEGER_BIN. Without it the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TRACES_PER_REQUEST = 64
SPANS_PER_TRACE = 8
SPANS_PER_REQUEST = TRACES_PER_REQUEST * SPANS_PER_TRACE
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEADLINE_S = 300.0
JAEGER_DEFAULT = Path(__file__).parent.parent / "tests/integration/jaeger/bin/jaeger"


class Load(NamedTuple):
    """What the generator saw."""

    spans: int
    size_bytes: int
    started_unix_s: float
    acknowledged_s: float  # from the first request to the last answer
    refusals: int
    last_trace_id: str


class Result(NamedTuple):
    """One row of the table."""

    name: str
    load: Load
    queryable_s: float
    cpu_s: float
    peak_rss_bytes: int
    disk_bytes: int


def build_request(chance: random.Random, now_ns: int) -> tuple[bytes, str]:
    """One export request, and the id of its last trace."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (("service.name", "bench"), ("service.version", "1.0.0"), ("service.instance.id", "bench-1")):
        group.resource.attributes.add(key=key).value.string_value = value
    scope = group.scope_spans.add()
    scope.scope.name = "bench.ingest"
    trace_id = b""
    for _ in range(TRACES_PER_REQUEST):
        trace_id, parent_id = chance.randbytes(16), b""
        for position in range(SPANS_PER_TRACE):
            span_id = chance.randbytes(8)
            duration_ns = int(chance.lognormvariate(15, 1))
            span = scope.spans.add(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=parent_id,
                name=("GET /memories", "SELECT memories", "plugin summarise on_query", "search memories")[position % 4],
                kind=2 if not parent_id else 1,
                start_time_unix_nano=now_ns,
                end_time_unix_nano=now_ns + duration_ns,
            )
            parent_id = parent_id or span_id
            for key, value in (
                ("db.system.name", "sqlite"),
                ("db.collection.name", "memories"),
                ("db.query.text", "SELECT id, text FROM memories WHERE persona = ? ORDER BY created DESC LIMIT ?"),
                ("db.query.summary", "SELECT memories"),
                ("hub.persona.id", f"persona-{chance.randrange(10)}"),
            ):
                span.attributes.add(key=key).value.string_value = value
            span.attributes.add(key="db.response.returned_rows").value.int_value = chance.randrange(1000)
            span.attributes.add(key="thread.id").value.int_value = 140_000_000_000 + chance.randrange(8)
    return request.SerializeToString(), trace_id.hex()


def generate(address: str, spans: int, in_flight: int) -> Load:
    """Build everything, then send it with `in_flight` requests on their way at a time; a refusal is repeated."""
    import grpc

    chance = random.Random(7)
    built = [build_request(chance, time.time_ns()) for _ in range(-(-spans // SPANS_PER_REQUEST))]
    slots = threading.Semaphore(in_flight)
    again: list[bytes] = []
    refusals = 0
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(30)
        export = channel.unary_unary(EXPORT)
        started_unix_s, started_s = time.time(), time.perf_counter()

        def send(payload: bytes) -> None:
            slots.acquire()
            call = export.future(payload, timeout=60)

            def done(finished: Any) -> None:
                if finished.code() is not grpc.StatusCode.OK:
                    again.append(payload)
                slots.release()

            call.add_done_callback(done)

        waiting = [payload for payload, _ in built]
        while waiting:
            for payload in waiting:
                send(payload)
            for _ in range(in_flight):
                slots.acquire()
            for _ in range(in_flight):
                slots.release()
            waiting, again[:] = list(again), []
            refusals += len(waiting)
        acknowledged_s = time.perf_counter() - started_s
    size_bytes = sum(len(payload) for payload, _ in built)
    total = len(built) * SPANS_PER_REQUEST
    return Load(total, size_bytes, started_unix_s, acknowledged_s, refusals, built[-1][1])


class Watch(threading.Thread):
    """CPU and memory of a process and its children, from `start` until `finish`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        import psutil

        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._cpu_s: dict[int, float] = {}
        self._before_s = 0.0
        self.peak_rss_bytes = 0

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self._look()

    def begin(self) -> None:
        """Count from here."""
        self._look()
        self._before_s = sum(self._cpu_s.values())
        self.start()

    def finish(self) -> float:
        """CPU seconds since `begin`."""
        self._ended.set()
        self.join()
        self._look()
        return sum(self._cpu_s.values()) - self._before_s

    def _look(self) -> None:
        import psutil

        rss_bytes = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._cpu_s[process.pid] = times.user + times.system
                rss_bytes += process.memory_info().rss
            except psutil.Error:
                continue
        self.peak_rss_bytes = max(self.peak_rss_bytes, rss_bytes)


def measure(
    name: str, process: subprocess.Popen[bytes], grpc: str, count: Callable[[Load], bool], disk: Path, options: Any
) -> Result:
    """Send the load to a running server and wait until it can be queried."""
    watch = Watch(process.pid)
    watch.begin()
    command = [sys.executable, "-m", "bench.ingest", "--generate", grpc]
    command += ["--spans", str(options.spans), "--in-flight", str(options.in_flight)]
    load = Load(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    deadline_s = time.time() + DEADLINE_S
    while not count(load):
        if time.time() > deadline_s:
            raise SystemExit(f"{name}: not everything was queryable within {DEADLINE_S:g} s")
        time.sleep(0.05)
    queryable_s = time.time() - load.started_unix_s
    cpu_s = watch.finish()
    return Result(name, load, queryable_s, cpu_s, watch.peak_rss_bytes, size_of(disk))


def size_of(folder: Path) -> int:
    """Bytes that the files under a folder take on disk: badger makes its files large and leaves holes in them."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def measure_hubscope(folder: Path, options: Any) -> Result:
    """`hubscope collect` with everything on, over a lake in `folder`."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    lake = folder / "lake"
    addresses = [f"--{name}=127.0.0.1:0" for name in ("grpc", "http", "telemetry")]
    command = [sys.executable, "-m", "hubscope.console", "collect", f"--lake={lake}", *addresses]
    with open(folder / "hubscope.txt", "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        record = wait_for(lambda: json.loads((lake / ".state/collector.json").read_text()), process, output.name)
        wait_for(lambda: ask(f"http://{record['telemetry']}/healthz"), process, output.name)

        def all_rows(load: Load) -> bool:
            try:
                table = DeltaTable(str(lake / "otel_traces"))
            except TableNotFoundError:
                return False
            rows = table.get_add_actions(flatten=True).column("num_records").to_pylist()
            return sum(rows) >= load.spans

        return measure("hubscope", process, record["grpc"], all_rows, lake / "otel_traces", options)
    finally:
        process.terminate()
        process.wait(30)


def measure_jaeger(program: Path, folder: Path, options: Any) -> Result:
    """Jaeger 2 with badger, with its defaults otherwise."""
    import socket

    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    config = folder / "jaeger.yaml"
    config.write_text(
        f"""
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
extensions:
  jaeger_storage:
    backends:
      badger:
        badger:
          ephemeral: false
          directories: {{keys: "{folder}/keys", values: "{folder}/values"}}
  jaeger_query:
    storage: {{traces: badger}}
    http: {{endpoint: "127.0.0.1:{ports[1]}"}}
    grpc: {{endpoint: "127.0.0.1:{ports[2]}"}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{ports[0]}"}}}}}}}}
processors: {{batch: {{}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: badger}}}}
"""
    )
    with open(folder / "jaeger.txt", "wb") as output:
        process = subprocess.Popen([str(program), "--config", str(config)], stdout=output, stderr=output)
    try:
        query = f"http://127.0.0.1:{ports[1]}"
        wait_for(lambda: ask(f"{query}/api/v3/services"), process, output.name)
        return measure(
            "Jaeger 2, badger",
            process,
            f"127.0.0.1:{ports[0]}",
            lambda load: ask(f"{query}/api/v3/traces/{load.last_trace_id}") is not None,
            folder,
            options,
        )
    finally:
        process.terminate()
        process.wait(60)


def ask(url: str) -> Any:
    """The JSON answer, or None where there is none yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return None


def wait_for(answer: Callable[[], Any], process: subprocess.Popen[bytes], output: str) -> Any:
    """The first answer of a server that is starting."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if (found := answer()) is not None:
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{Path(output).read_text()[-2000:]}")


def table(results: list[Result]) -> str:
    """The Markdown table."""
    lines = [
        "| | acknowledged spans/s | all queryable after | queryable spans/s | CPU µs/span | peak memory "
        "| B/span on disk | refusals |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        n = r.load.spans
        lines.append(
            f"| {r.name} | {n / r.load.acknowledged_s:,.0f} | {r.queryable_s:.2f} s | {n / r.queryable_s:,.0f} "
            f"| {r.cpu_s / n * 1e6:.1f} | {r.peak_rss_bytes / 2**20:,.0f} MiB | {r.disk_bytes / n:.1f} "
            f"| {r.load.refusals} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run both, one after the other, and print the table; with --generate, be the load generator."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__.split("\n")[0])
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--peer", choices=("auto", "none"), default="auto")
    parser.add_argument("--generate", metavar="HOST:PORT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.generate:
        print(json.dumps(generate(options.generate, options.spans, options.in_flight)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped too
    results: list[Result] = []
    note = ""
    with tempfile.TemporaryDirectory(prefix="hubscope-bench-") as folder:
        ours, theirs = Path(folder) / "hubscope", Path(folder) / "jaeger"
        ours.mkdir()
        theirs.mkdir()
        results.append(measure_hubscope(ours, options))
        jaeger = Path(os.environ.get("JAEGER_BIN", JAEGER_DEFAULT))
        if options.peer == "none":
            note = "The peer was not asked for."
        elif not jaeger.is_file():
            note = f"No peer: there is no {jaeger}. `make integration` builds it; JAEGER_BIN names another."
        else:
            results.append(measure_jaeger(jaeger, theirs, options))
    load = results[0].load
    print(f"### Ingest: {load.spans:,} spans of {load.size_bytes / load.spans:.0f} B over gRPC\n")
    print(f"{os.cpu_count()} cores shared with the load generator, Python {platform.python_version()}\n")
    print(table(results))
    if note:
        print(f"\n{note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

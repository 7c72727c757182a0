"""The servers that are loaded: ours, and the peers that can be had; and what the system says of their processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

START_DEADLINE_S = 60.0
JAEGER_DEFAULT = Path(__file__).parent.parent.parent / "tests/integration/jaeger/bin/jaeger"


class Server(NamedTuple):
    """A running server."""

    name: str
    process: subprocess.Popen[bytes]
    grpc: str
    http: str
    disk: Path
    rows: Callable[[str], int] | None  # of a kind of load: how many can be queried now
    has_trace: Callable[[str], bool] | None


LOOK_EVERY_S = 0.2
LOOK_FOR_MORE_EVERY_S = 2.0


class Watch(threading.Thread):
    """CPU and memory of a process and its children, from `begin` until `finish`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._names: dict[int, str] = {}
        self._processes: list[psutil.Process] = []
        self._look_for_more_s = 0.0
        self._cpu_s: dict[int, float] = {}
        self._before_s: dict[int, float] = {}
        self.rss_bytes: list[tuple[float, int]] = []  # (Unix time, all processes together)
        self.peak_of: dict[str, int] = {}  # process -> its own peak

    def run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self._look()

    def begin(self) -> None:
        """Count from here."""
        self._look()
        self._before_s = dict(self._cpu_s)
        self.start()

    def finish(self) -> dict[str, float]:
        """CPU seconds since `begin`, by process."""
        self._ended.set()
        self.join()
        self._look_for_more_s = 0.0
        self._look()
        used: dict[str, float] = {}
        for pid, cpu_s in self._cpu_s.items():
            used[self._names[pid]] = used.get(self._names[pid], 0.0) + cpu_s - self._before_s.get(pid, 0.0)
        return used

    @property
    def peak_rss_bytes(self) -> int:
        return max(rss for _, rss in self.rss_bytes)

    def _look(self) -> None:
        total = 0
        if time.monotonic() >= self._look_for_more_s:  # 5 ms, for it looks through all processes of the machine
            self._look_for_more_s = time.monotonic() + LOOK_FOR_MORE_EVERY_S
            self._processes = [self._root, *self._root.children(recursive=True)]
        for process in self._processes:
            try:
                times = process.cpu_times()
                self._cpu_s[process.pid] = times.user + times.system
                if process.pid not in self._names:
                    words = [word for word in process.cmdline() if word.startswith("hubscope.")]
                    self._names[process.pid] = words[0].rpartition(".")[2] if words else process.name()
                rss_bytes = process.memory_info().rss
                total += rss_bytes
                name = self._names[process.pid]
                self.peak_of[name] = max(self.peak_of.get(name, 0), rss_bytes)
            except psutil.Error:
                continue
        self.rss_bytes.append((time.time(), total))


@contextmanager
def hubscope(folder: Path) -> Iterator[Server]:
    """`hubscope collect` with everything on, over a lake in `folder`."""
    from deltalake import DeltaTable

    lake = folder / "lake"
    addresses = [f"--{name}=127.0.0.1:0" for name in ("grpc", "http", "telemetry")]
    command = [sys.executable, "-m", "hubscope.console", "collect", f"--lake={lake}", *addresses]
    tables: dict[str, DeltaTable] = {}

    def rows(kind: str) -> int:
        total = 0
        for name in (
            ("otel_traces",)
            if kind != "metrics"
            else ("otel_metrics_sum", "otel_metrics_gauge", "otel_metrics_exponential_histogram")
        ):
            if name not in tables:
                if not DeltaTable.is_deltatable(str(lake / name)):
                    continue  # the worker is still starting
                tables[name] = DeltaTable(str(lake / name))
            tables[name].update_incremental()
            total += sum(tables[name].get_add_actions(flatten=True).column("num_records").to_pylist())
        return total

    with _running(command, folder / "hubscope.txt") as process:
        output = folder / "hubscope.txt"
        record = _wait_for(lambda: json.loads((lake / ".state/collector.json").read_text()), process, output)
        _wait_for(lambda: ask(f"http://{record['telemetry']}/healthz"), process, output)
        yield Server("hubscope", process, record["grpc"], record["http"], lake, rows, None)


@contextmanager
def jaeger(program: Path, folder: Path) -> Iterator[Server]:
    """Jaeger 2 with badger, with its defaults otherwise."""
    ports = _free_ports(4)
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
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{ports[0]}"}}
      http: {{endpoint: "127.0.0.1:{ports[3]}"}}
processors: {{batch: {{}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: badger}}}}
"""
    )
    with _running([str(program), "--config", str(config)], folder / "jaeger.txt") as process:
        query = f"http://127.0.0.1:{ports[1]}"
        _wait_for(lambda: ask(f"{query}/api/v3/services"), process, folder / "jaeger.txt")
        yield Server(
            "Jaeger 2, badger",
            process,
            f"127.0.0.1:{ports[0]}",
            f"127.0.0.1:{ports[3]}",
            folder,
            None,
            lambda trace_id: ask(f"{query}/api/v3/traces/{trace_id}") is not None,
        )


def ask(url: str) -> Any:
    """The JSON answer, or None where there is none yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return None


def size_of(folder: Path) -> int:
    """Bytes that the files under a folder take on disk: badger makes its files large and leaves holes in them."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@contextmanager
def _running(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(output, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _free_ports(count: int) -> list[int]:
    ports = []
    for _ in range(count):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    return ports


def _wait_for(answer: Callable[[], Any], process: subprocess.Popen[bytes], output: Path) -> Any:
    deadline_s = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if (found := answer()) is not None:
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    raise SystemExit(f"the server did not start:\n{output.read_text()[-2000:]}")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

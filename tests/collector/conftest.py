"""A real `hubscope collect` on free ports, and OTLP requests to send it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

START_DEADLINE_S = 40.0
STOP_DEADLINE_S = 30.0


@dataclass
class Collector:
    """A collector process over one lake. `start` again after it ended goes on with the same lake and state."""

    lake: Path
    flags: tuple[str, ...] = ()
    state_folder: Path | None = None  # where the flags name another one
    output_file: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.state_folder or self.lake / ".state"

    @property
    def _output(self) -> Path:
        return self.output_file or self.lake.parent / "output.txt"

    @property
    def output(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    def start(self, wait: bool = True) -> None:
        """Start it; with `wait`, until /healthz says that it takes requests."""
        ports = self.addresses or {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "telemetry": "127.0.0.1:0"}
        command = [sys.executable, "-m", "hubscope.console", "collect", "--lake", str(self.lake), *self.flags]
        for name, address in ports.items():
            command += [f"--{name}", address]
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))} | self.environ
        with open(self._output, "ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ
            )
        if wait:
            self.wait_for(self._ready, "the collector is ready", START_DEADLINE_S)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output}"
        try:
            record = json.loads((self.state / "collector.json").read_text())
        except (OSError, ValueError):
            return False
        if record["pid"] != self.process.pid:
            return False
        self.addresses = record["addresses"]
        return self.health().get("ready") is True

    def health(self) -> dict[str, Any]:
        """What /healthz says; nothing where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.addresses['telemetry']}/healthz", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except (OSError, ValueError):
            return {}

    def pid_of(self, name: str) -> int:
        """The pid of `front` or `worker`; 0 where it is not there."""
        assert self.process is not None
        try:
            for child in psutil.Process(self.process.pid).children():
                if f"hubscope.collector.{name}" in child.cmdline():
                    return child.pid
        except psutil.Error:
            pass
        return 0

    def wait_for(self, ask: Callable[[], Any], what: str, deadline_s: float = 20.0) -> Any:
        """The first true answer of `ask`; fails saying `what` after the deadline."""
        end_s = time.monotonic() + deadline_s
        while not (answer := ask()):
            assert time.monotonic() < end_s, f"not within {deadline_s:g} s: {what}\n{self.output}"
            time.sleep(0.05)  # between two looks at the condition
        return answer

    def span_names(self) -> list[str]:
        """Of every row that the lake has."""
        from deltalake import DeltaTable

        if not (self.lake / "otel_traces" / "_delta_log").is_dir():
            return []
        table = DeltaTable(str(self.lake / "otel_traces")).to_pyarrow_table(columns=["SpanName"])
        return [str(name) for name in table.column("SpanName").to_pylist()]

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_DEADLINE_S)

    def kill_all(self) -> None:
        """kill -9 of the supervisor and both children."""
        assert self.process is not None
        victims = [self.process.pid, self.pid_of("front"), self.pid_of("worker")]
        for pid in victims:
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.process.wait()


@pytest.fixture(scope="module")
def shared_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A running collector for all tests of a module."""
    collector = Collector(tmp_path_factory.mktemp("shared") / "lake")
    collector.start()
    yield collector
    if collector.process is not None and collector.process.poll() is None:
        collector.kill_all()


@pytest.fixture
def new_collector(tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """`new_collector(*flags)`: a collector that is not started yet. Whatever is left at the end is killed."""
    made: list[Collector] = []

    def make(*flags: str, lake: Path | None = None, environ: dict[str, str] | None = None) -> Collector:
        folder = tmp_path / f"collector-{len(made) + 1}"
        folder.mkdir()
        made.append(Collector(lake or folder / "lake", flags, environ=environ or {}))
        return made[-1]

    yield make
    for collector in made:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all()

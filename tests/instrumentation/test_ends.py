"""However a process ends, and whatever became of the collector: how many of its spans arrive in the end.

The table in docs/exporting.md is the test: each of its rows is run, with real processes and sockets.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

# 1,000 spans at once, then the end. `ready` says that they are made and, where asked for, that a batch has gone out.
APP = """
import os, signal, sys, time
from hubscope import instrumentation as hub
hub.configure(service_name="app")
hub.interactive()
from opentelemetry import trace
tracer = trace.get_tracer("app")
for number in range(1000):
    with tracer.start_as_current_span(f"n{number}"): pass
how = sys.argv[1]
if how == "it returns": pass
elif how == "`sys.exit`": sys.exit(3)
elif how == "an exception": raise ValueError("the application's own")
elif how == "`os._exit`": os._exit(4)
else:
    print("ready", flush=True)
    time.sleep(60)
"""
CODES = {"it returns": 0, "`sys.exit`": 3, "an exception": 1, "`os._exit`": 4, "SIGTERM": -15, "SIGKILL": -9}


def rows() -> list[tuple[str, list[str]]]:
    """How it ends, and what the columns say for it."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [(cells[0], cells[1:]) for cells in lines if cells[0] in CODES]


def end(how: str, environ: dict[str, str], ready: Callable[[], Any] = lambda: True) -> float:
    """Run the program to its end; the seconds from there to the end of the process."""
    process = subprocess.Popen(
        [sys.executable, "-c", APP, how], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if how.startswith("SIG"):
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        began = time.monotonic()
        process.send_signal(getattr(signal, how))
    else:
        began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == CODES[how]
    return time.monotonic() - began


def arrived(sink: Any) -> int:
    """How many of the thousand arrived, none of them twice."""
    counted = Counter(span.name for span in sink.spans if span.name.startswith("n"))
    assert set(counted.values()) <= {1}
    return len(counted)


def next_start(environ: dict[str, str]) -> None:
    """Any other program of the user that sends there."""
    text = "from hubscope import instrumentation as hub; hub.configure()"
    subprocess.run([sys.executable, "-c", text], env=environ, check=True, timeout=60)


def spooled(environ: dict[str, str]) -> list[Path]:
    return list(Path(environ["XDG_STATE_HOME"]).rglob("traces-*/*.otlp"))


def test_the_table_has_every_end() -> None:
    """Each way to end stands in the page, once."""
    assert sorted(how for how, _ in rows()) == sorted(CODES)


@pytest.mark.parametrize(("how", "cells"), rows())
def test_ends_with_a_collector(how: str, cells: list[str], exporting_to: Any, sink: Any) -> None:
    """The collector answers: what the table says arrives, `os._exit` with the next start."""
    environ = exporting_to(sink.endpoint, OTEL_BSP_SCHEDULE_DELAY="30000", HUBSCOPE_EXIT_TIMEOUT_MS="20000")
    # The queue's thread sends a whole batch at once, and would send the rest after the delay.
    end(how, environ, lambda: len(sink.spans) >= 512)
    if how == "`os._exit`":
        next_start(environ)
    if cells[0] == "whole batches":
        assert 500 < arrived(sink) <= 512  # a few of the batch are the start's own
    else:
        assert arrived(sink) == 1000
    assert not spooled(environ)


@pytest.mark.parametrize(
    ("how", "cells", "protocol"),
    # The way out is the same over gRPC: one end shows that it is taken.
    [(*row, "http/protobuf") for row in rows()] + [(*row, "grpc") for row in rows() if row[0] == "SIGTERM"],
)
def test_ends_without_a_collector(
    how: str, cells: list[str], protocol: str, exporting_to: Any, sink: Any, closed_port: int
) -> None:
    """Nothing listens until the next start: what waits in the spool then is what the table says, and goes out once."""
    environ = exporting_to(
        f"http://127.0.0.1:{closed_port}", protocol, OTEL_BSP_SCHEDULE_DELAY="30000", HUBSCOPE_EXIT_TIMEOUT_MS="20000"
    )
    end(how, environ, lambda: spooled(environ))
    kept = sum(int(path.name.split("-")[3]) for path in spooled(environ))
    whole = 512 if cells[1] == "whole batches" else 1000  # and what is the start's own
    assert kept >= whole
    assert kept < whole + 10


@pytest.mark.parametrize("state", ["hanging", "slow"])
def test_a_collector_that_hangs_or_is_slow_loses_and_doubles_nothing(
    state: str, exporting_to: Any, scripted_sink: Any
) -> None:
    """An unanswered request is kept as it was sent, and a slow one is waited for: each goes out once."""
    server = scripted_sink(hang=state == "hanging", delay_s=0.3)
    environ = exporting_to(server.endpoint, HUBSCOPE_EXIT_TIMEOUT_MS="20000" if state == "slow" else "1500")
    assert end("it returns", environ) < 15
    traces = [body for path, body in server.requests if path.endswith("/traces")]
    assert len(set(traces)) == len(traces)
    if state == "slow":
        assert not spooled(environ)
    else:
        kept = [path.read_bytes() for path in spooled(environ)]
        assert set(traces) <= set(kept)
        assert sum(int(path.name.split("-")[3]) for path in spooled(environ)) >= 1000


def test_a_forked_child_that_ends_by_itself_keeps_what_it_has(run_app: Any, exporting_to: Any, sink: Any) -> None:
    """A child of `os.fork` ends by `os._exit`: its spans go out later, and one without spans leaves nothing."""
    text = (
        "import os\n"
        "from hubscope import instrumentation as hub\n"
        "for spans in (3, 0):\n"
        "    if not (pid := os.fork()):\n"
        "        for _ in range(spans):\n"
        "            with hub.task('child'): pass\n"
        "        os._exit(7)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
    )
    environ = exporting_to(sink.endpoint, HUBSCOPE_EXIT_TIMEOUT_MS="20000")
    finished = run_app(text, environ)
    assert finished.code == 0, finished.err
    next_start(environ)
    assert len(sink.named("task child")) == 3
    assert len({span.resource["service.instance.id"] for span in sink.named("task child")}) == 1
    assert len(sink.named("hub.startup.worker")) == 1


def test_a_real_collector_that_comes_later_has_each_span_once(
    exporting_to: Any, closed_port: int, tmp_path: Path
) -> None:
    """1,000 spans end while nothing runs; `hubscope collect` starts, another program runs: the lake has each once."""
    environ = exporting_to(f"http://127.0.0.1:{closed_port}")
    end("it returns", environ)
    lake, command = tmp_path / "lake", [sys.executable, "-m", "hubscope.console"]
    addresses = ["--grpc", "127.0.0.1:0", "--http", f"127.0.0.1:{closed_port}", "--telemetry", "127.0.0.1:0"]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    collector = subprocess.Popen(
        [*command, "collect", "--lake", str(lake), *addresses], env=plain, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not (lake / ".state" / "collector.json").exists():
            assert collector.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        next_start({**environ, "HUBSCOPE_EXIT_TIMEOUT_MS": "20000"})
        assert not spooled(environ)
        query = "SELECT count(*) AS n, count(DISTINCT SpanId) AS d FROM otel_traces WHERE ScopeName = 'app'"
        found: Any = None
        while found != [{"n": 1000, "d": 1000}]:
            assert time.monotonic() < deadline, found
            asked = [*command, "sql", "--lake", str(lake), "--format", "json", query]
            done = subprocess.run(asked, env=plain, capture_output=True, text=True)
            found = json.loads(done.stdout) if done.returncode == 0 else done.stderr
    finally:
        collector.terminate()
        collector.communicate(timeout=30)

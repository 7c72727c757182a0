"""`hubscope status --watch` beside a running collector: a view on a terminal, lines in a pipe, JSON, a clean end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.console import watch
from hubscope.console.watch import Look

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

COMMAND = [sys.executable, "-m", "hubscope.console", "status", "--watch", "--interval", "0.2"]


def hear_ctrl_c() -> None:
    """In the child before it starts: a background job of a shell script ignores SIGINT, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def own_terminal() -> None:
    """In the child before it starts: what stands at its stdin is its terminal, with a Ctrl-C that it hears."""
    hear_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def send(collector: Any, spans: int) -> int:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(spans):
        scope.spans.add(trace_id=os.urandom(16), span_id=number.to_bytes(8, "big"), name="x")
    return httpx.post(
        f"http://{collector.addresses['http']}/v1/traces",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    ).status_code


def test_json_has_rates_sizes_and_queues(shared_collector: Any) -> None:
    """Each line is an object; what came in between two looks is a rate; exporters, sizes and memory are there."""
    with subprocess.Popen(
        [*COMMAND, "--json", "--lake", str(shared_collector.lake)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["status"], first["rates"]) == ("ok", None)
        assert send(shared_collector, 40) == 200
        seen: list[dict[str, Any]] = []
        while not any(found["rates"]["spans"] > 0 for found in seen) or not seen[-1]["exporters"]:
            seen.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    last = seen[-1]
    assert last["accepted"]["spans"] >= 40
    assert last["refused"] == {"spans": 0.0, "points": 0.0, "logs": 0.0}
    assert [exporter["name"] for exporter in last["exporters"]] == ["lake"]
    assert 0 < last["memory_bytes"] < last["memory_limit_bytes"]
    assert last["log_size_bytes"] >= 0


def test_a_pipe_gets_lines_and_may_close(shared_collector: Any) -> None:
    """A line a look, no control characters; a reader that has enough ends it without a word."""
    command = [*COMMAND, "--lake", str(shared_collector.lake)]
    done = subprocess.run([*command, "--count", "3"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3
    assert "spans/s" in done.stdout.splitlines()[-1]
    assert "\x1b" not in done.stdout
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_a_terminal_gets_a_view_that_is_drawn_anew(shared_collector: Any) -> None:
    """On a pseudo-terminal the same rows are drawn over, and Ctrl-C leaves with 0, the cursor shown, no traceback."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [*COMMAND, "--lake", str(shared_collector.lake)], stdin=theirs, stdout=theirs, stderr=theirs, env=environ,
        start_new_session=True, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    try:
        while drawn.count(b"to lake") < 3:
            drawn += os.read(ours, 4096)
        os.write(ours, b"\x03")
        try:
            while part := os.read(ours, 4096):
                drawn += part
        except OSError:
            pass  # Linux says so at the end of a terminal
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)
    assert b"\x1b[1A" in drawn  # a line up: drawn over
    assert drawn.rindex(b"\x1b[?25h") > drawn.index(b"\x1b[?25l")
    assert b"Traceback" not in drawn


def test_without_a_collector_it_says_so(tmp_path: Path) -> None:
    """Nothing runs: the view says it and goes on looking."""
    done = subprocess.run(
        [*COMMAND, "--count", "2", "--lake", str(tmp_path / "lake")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all("not running" in line for line in done.stdout.splitlines())


def test_a_collector_with_tokens_is_seen_by_its_owner(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """The owner's tools read the token from the state folder: the whole view, and the token nowhere in it."""
    (tmp_path / "c.yaml").write_text("receivers: {auth: {bearer_tokens: [tok-en-1234]}}\n")
    collector = new_collector("--config", str(tmp_path / "c.yaml"))
    collector.start()
    look = collector.wait_for(
        lambda: found if (found := watch.look(str(collector.lake))).samples and found.health["exporters"] else None,
        "a whole answer",
    )
    view = watch.view(look, None)
    assert view.memory_limit_bytes == 512 * 1024 * 1024
    assert "tok-en-1234" not in json.dumps(view.to_dict())


def test_a_restarted_front_counts_from_nothing() -> None:
    """A counter that fell was started anew: its rate is what it has, never negative."""

    def seen(at_s: float, spans: float) -> Look:
        text = f'otelcol_receiver_accepted_spans{{transport="grpc"}} {spans}\n'
        return Look(at_s, "", {"status": "ok"}, watch.parse(text), None, None, None)

    assert watch.view(seen(12, 300), seen(10, 100)).rates == {"spans": 100.0}
    assert watch.view(seen(12, 50), seen(10, 1000)).rates == {"spans": 25.0}


def test_a_label_comes_back_as_it_was() -> None:
    """Quotes, backslashes and line breaks in a label's value are read as Prometheus escapes them."""
    (found,) = watch.parse('a{x="q\\"b\\\\n\\nend",y="z"} 1.5\n# HELP a b\n')["a"]
    assert found == ({"x": 'q"b\\n\nend', "y": "z"}, 1.5)

"""Leaving is quick whatever became of the collector. Real processes, real sockets."""

from __future__ import annotations

import pytest

APP = """
import json, logging, time
from hubscope import instrumentation as hub
hub.configure(service_name="app")
with hub.task("recall"):
    pass
hub.rating(0.5)
flushed, took = None, None
if {flush}:
    began = time.monotonic()
    from opentelemetry import trace
    flushed = trace.get_tracer_provider().force_flush(700)
    took = time.monotonic() - began
print(json.dumps({{"flushed": flushed, "took": took, "left_at": time.time()}}))
"""


def _seconds_to_leave(result: dict[str, float], ended_at: float) -> float:
    return ended_at - result["left_at"]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("flush", [False, True])
def test_leaving_with_a_closed_port(run_app, exporting_to, closed_port, protocol, flush):
    """With nothing listening the process ends within 3 s, says where all is kept, and a flush says False in time."""
    import time

    finished = run_app(APP.format(flush=flush), exporting_to(f"http://127.0.0.1:{closed_port}", protocol), wrapper=())
    assert finished.code == 0, finished.err
    result = finished.json()
    assert _seconds_to_leave(result, time.time()) < 3
    assert finished.err.splitlines()[-1].startswith("hubscope: ")
    assert "It is kept in" in finished.err
    assert "lost" not in finished.err
    assert "Traceback" not in finished.err
    if flush:
        assert result["flushed"] is False
        assert result["took"] < 1.5


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("flush", [False, True])
def test_leaving_with_a_collector_that_never_answers(run_app, exporting_to, black_hole, protocol, flush):
    """A collector that accepts and never answers holds the process up for 3 s at most, and a flush says False."""
    import time

    environ = exporting_to(f"http://127.0.0.1:{black_hole}", protocol)
    if flush:
        environ["HUBSCOPE_EXIT_TIMEOUT_MS"] = "500"  # the default is what the other half of these tests holds to 3 s
    finished = run_app(APP.format(flush=flush), environ, wrapper=())
    assert finished.code == 0, finished.err
    result = finished.json()
    assert _seconds_to_leave(result, time.time()) < 3
    assert "It is kept in" in finished.err
    assert "lost" not in finished.err
    if flush:
        assert result["flushed"] is False
        assert result["took"] < 1.5


def test_flush_is_true_when_everything_was_accepted(run_app, exporting_to, sink):
    """With a collector there, a flush says True and what was measured has arrived when it returns."""
    finished = run_app(APP.format(flush=True), exporting_to(sink.endpoint), wrapper=())
    assert finished.json()["flushed"] is True
    assert "lost" not in finished.err
    assert sink.one("task recall").resource["service.name"] == "app"
    assert "hub.satisfaction" in sink.metrics
    assert [name for name, _ in sink.events] == ["hub.rating"]


def test_an_explicit_shutdown_is_bounded_too(run_app, exporting_to, black_hole):
    """`provider.shutdown()` by the application keeps to HUBSCOPE_EXIT_TIMEOUT_MS, and may be called twice."""
    finished = run_app(
        "import json, time\n"
        "from hubscope import instrumentation as hub\n"
        "hub.configure(service_name='app')\n"
        "from opentelemetry import metrics, trace\n"
        "with hub.task('recall'): pass\n"
        "began = time.monotonic()\n"
        "trace.get_tracer_provider().shutdown(); metrics.get_meter_provider().shutdown()\n"
        "trace.get_tracer_provider().shutdown()\n"
        "print(json.dumps(time.monotonic() - began))\n",
        exporting_to(f"http://127.0.0.1:{black_hole}", "grpc", HUBSCOPE_EXIT_TIMEOUT_MS="500"),
        wrapper=(),
    )
    assert finished.code == 0, finished.err
    assert finished.json() < 2.5  # two signals, half a second each


def test_sigterm_sends_what_is_waiting_and_then_kills(exporting_to, sink, tmp_path):
    """A process that is told to stop by SIGTERM still dies of SIGTERM, after its last telemetry went out."""
    import signal
    import subprocess
    import sys

    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\n"
            "from hubscope import instrumentation as hub\n"
            "hub.configure()\n"
            "with hub.task('recall'): pass\n"
            "print('ready', flush=True)\n"
            "time.sleep(60)\n",
        ],
        env=exporting_to(sink.endpoint),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    process.stdout.close()
    assert sink.one("task recall")
    assert sink.one("hub.startup")

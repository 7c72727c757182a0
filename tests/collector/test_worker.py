"""The worker as a real process over a real log and a real lake."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.configuration.settings import CollectorSettings, Limits
from hubscope.collector.deaths import MAX_DEATHS
from hubscope.collector.log.wal import END_SIZE_BYTES, Record, SegmentWriter, Signal, encode, sealed_segments
from hubscope.exporters.forward import ForwardConfig
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, SCHEMAS, TRACES
from hubscope.processors.options import ProcessorOptions
from hubscope.semconv import METRIC_KPI, METRIC_PLUGIN_OVERHEAD

DEADLINE_S = 20.0
KILLER = "kills the worker"


def spans_request(*names: str) -> Record:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for name in names:
        spans.add(name=name, trace_id=os.urandom(16), span_id=os.urandom(8), start_time_unix_nano=10**18)
    return Record(Signal.TRACES, request.SerializeToString(), 10**18)


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


class Lab:
    """One state folder with its log, lake and the workers started on it."""

    def __init__(self, folder: Path) -> None:
        self.settings = CollectorSettings(lake=str(folder / "lake"), state_dir=str(folder / "state"), stop_grace_s=20)
        self.state = folder / "state"
        self.log = SegmentWriter(self.settings.wal_dir)
        self.environment = dict(os.environ)
        self.workers: list[subprocess.Popen[str]] = []

    def add(self, *records: Record) -> int:
        self.log.append(records)
        number = self.log.seal()
        assert number is not None
        return number

    def start(self, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hubscope.collector.worker", "--settings-json", self.settings.to_json()]
        worker = subprocess.Popen(command, env=self.environment, stdin=stdin, stderr=subprocess.PIPE, text=True)
        self.workers.append(worker)
        return worker

    def stop(self, worker: subprocess.Popen[str]) -> str:
        worker.send_signal(signal.SIGTERM)
        _, talk = worker.communicate(timeout=DEADLINE_S)
        assert worker.returncode == 0, talk
        return talk

    def drain(self) -> str:
        """Start a worker and stop it as soon as it works: it ends when everything sealed is in the lake."""
        worker = self.start()
        until(lambda: self.status().get("pid") == worker.pid, "a start")
        return self.stop(worker)

    def names(self) -> list[str]:
        """The names of all spans in the lake, sorted."""
        if not (Path(self.settings.lake) / TRACES / "_delta_log").is_dir():
            return []
        found: list[str] = (
            DeltaTable(f"{self.settings.lake}/{TRACES}").to_pyarrow_table(columns=["SpanName"])["SpanName"].to_pylist()
        )
        return sorted(found)

    def status(self) -> dict[str, Any]:
        path = self.state / "worker.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def letters(self) -> list[dict[str, Any]]:
        folder = self.state / "dead-letter"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []

    def kill_on(self, folder: Path, name: str = KILLER) -> None:
        """Make every process die that decodes a span of this name, as a bug in a native library would."""
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            "import os\n"
            "import ptars\n"
            "taken = ptars.HandlerPool.get_for_message\n"
            "class Deadly:\n"
            "    def __init__(self, handler): self.handler = handler\n"
            "    def list_to_record_batch(self, payloads):\n"
            f"        if any({name.encode()!r} in payload for payload in payloads): os.abort()\n"
            "        return self.handler.list_to_record_batch(payloads)\n"
            "ptars.HandlerPool.get_for_message = lambda pool, descriptor: Deadly(taken(pool, descriptor))\n"
        )
        self.environment["PYTHONPATH"] = str(folder)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    for worker in made.workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()
        if worker.stderr:
            worker.stderr.close()


def test_sealed_segments_become_rows_and_are_deleted(lab: Lab) -> None:
    """What is sealed before and during a run is in the lake; the log is empty afterwards; SIGTERM ends with 0."""
    lab.add(spans_request("a", "b"), spans_request("c"))
    worker = lab.start()
    until(lambda: lab.names() == ["a", "b", "c"], "the first segment is in the lake")
    last = lab.add(spans_request("d"))
    until(lambda: lab.status().get("exporters", {}).get("lake", {}).get("cursor") == last, "the cursor is told")
    assert lab.status()["rows"][TRACES] == 4
    assert set(lab.status()["rows"]) == set(SCHEMAS)
    assert lab.status()["pid"] == worker.pid
    lab.stop(worker)
    assert lab.names() == ["a", "b", "c", "d"]
    assert sealed_segments(lab.settings.wal_dir) == []


def test_what_is_sealed_is_drained_before_the_end(lab: Lab) -> None:
    """SIGTERM right after the start still brings everything that is sealed into the lake."""
    for number in range(5):
        lab.add(spans_request(f"s{number}"))
    worker = lab.start()
    until(lambda: lab.status(), "it runs")
    lab.stop(worker)
    assert lab.names() == [f"s{number}" for number in range(5)]


def test_kills_lose_nothing_and_repeat_nothing(lab: Lab) -> None:
    """A worker killed at arbitrary moments, with the segments coming on, leaves every span in the lake once."""
    wanted: list[str] = []
    for turn in range(4):
        for number in range(6):
            names = [f"t{turn} n{number} s{span}" for span in range(3)]
            wanted += names
            lab.add(*[spans_request(name) for name in names])
        worker = lab.start()
        before = len(lab.names())
        until(lambda: len(lab.names()) > before or turn == 3, "some of it is in the lake")  # noqa: B023 - asked in this turn only
        worker.kill()
        worker.wait()
    last = lab.start()
    until(lambda: not sealed_segments(lab.settings.wal_dir), "the log is empty")
    lab.stop(last)
    assert lab.names() == sorted(wanted)
    assert lab.letters() == []


def test_a_segment_that_comes_again_is_not_written_again(lab: Lab) -> None:
    """Where the cursor was lost after the commit, the lake refuses the segments it has."""
    lab.add(spans_request("a"))
    kept = sealed_segments(lab.settings.wal_dir)[0].read_bytes()
    worker = lab.start()
    until(lambda: not sealed_segments(lab.settings.wal_dir), "taken")
    lab.stop(worker)
    (lab.state / "cursors" / "lake").unlink()
    (lab.settings.wal_dir / f"{1:016d}.wal").write_bytes(kept)
    again = lab.start()
    until(lambda: not sealed_segments(lab.settings.wal_dir), "taken again")
    lab.stop(again)
    assert lab.names() == ["a"]


def test_a_new_state_folder_appends_to_an_old_lake(lab: Lab, tmp_path: Path) -> None:
    """Segment 1 of another state folder is another segment: nothing of it is taken for a repetition."""
    lab.add(spans_request("old"))
    lab.stop(_started(lab))
    other = Lab(tmp_path / "other")
    other.settings = CollectorSettings(lake=lab.settings.lake, state_dir=str(other.state), stop_grace_s=20)
    other.add(spans_request("new"))
    worker = other.start()
    until(lambda: other.status(), "it runs")
    other.stop(worker)
    assert lab.names() == ["new", "old"]


def _started(lab: Lab) -> subprocess.Popen[str]:
    worker = lab.start()
    until(lambda: lab.status(), "it runs")
    return worker


def test_a_request_that_kills_is_set_aside_and_the_rest_goes_on(lab: Lab, tmp_path: Path) -> None:
    """A request that kills the worker and then its trial is a dead letter; its neighbours are in the lake."""
    lab.kill_on(tmp_path / "deadly")
    records = [spans_request(f"s{number}") for number in range(7)]
    records.insert(4, spans_request(KILLER))
    lab.add(*records)
    lab.add(spans_request("after"))
    first = lab.start()
    first.wait(timeout=DEADLINE_S)
    assert first.returncode < 0
    second = lab.start()
    until(lambda: not sealed_segments(lab.settings.wal_dir), "both segments are done")
    lab.stop(second)
    assert lab.names() == ["after", *(f"s{number}" for number in range(7))]
    (letter,) = lab.letters()
    assert (letter["segment"], letter["record"]) == (1, 4)
    assert "killed the process that tried it (signal 6)" in letter["reason"]
    assert (lab.state / "dead-letter" / letter["payload"]).read_bytes() == records[4].payload


def test_a_segment_that_kills_in_the_lake_is_found_behind_others(lab: Lab, tmp_path: Path) -> None:
    """Where writing one segment always kills the worker, it is set aside in the end and those behind it are written."""
    lab.add(spans_request("before"))
    lab.add(spans_request(KILLER))
    lab.add(spans_request("behind"))
    lab.add(spans_request("last"))
    lab.environment["PYTHONPATH"] = str(tmp_path / "deadly")
    (tmp_path / "deadly").mkdir()
    (tmp_path / "deadly/sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'hubscope.collector.worker' in sys.orig_argv:\n"  # the trial's process survives, as it may
        "    from hubscope.exporters import lake\n"
        "    written = lake.write_rows\n"
        "    def deadly(storage, name, rows, *rest):\n"
        f"        if 'SpanName' in rows.column_names and {KILLER!r} in rows['SpanName'].to_pylist(): os.abort()\n"
        "        return written(storage, name, rows, *rest)\n"
        "    lake.write_rows = deadly\n"
    )
    for _ in range(MAX_DEATHS + 3):
        worker = lab.start()
        until(lambda worker=worker: worker.poll() is not None or lab.status().get("pid") == worker.pid, "a start")
        until(
            lambda worker=worker: worker.poll() is not None or lab.names() == ["before", "behind", "last"],
            "a death or an end",
        )
        if worker.poll() is None:
            lab.stop(worker)
            break
    assert lab.names() == ["before", "behind", "last"]
    (letter,) = lab.letters()
    assert f"died {MAX_DEATHS} times" in letter["reason"]


def test_clean_stops_blame_no_segment(lab: Lab, tmp_path: Path) -> None:
    """However often a worker is stopped while the lake is away, its requests are written once the lake is there."""
    (tmp_path / "away").mkdir()
    (tmp_path / "away/sitecustomize.py").write_text(
        "from hubscope.exporters import lake\n"
        "def away(*_): raise OSError(19, 'No such device')\n"
        "lake.write_rows = away\n"
    )
    lab.settings = replace(lab.settings, stop_grace_s=0.2)
    lab.environment["PYTHONPATH"] = str(tmp_path / "away")
    lab.add(spans_request("a"))
    for _ in range(MAX_DEATHS + 2):
        worker = lab.start()
        until(lambda worker=worker: lab.status().get("pid") == worker.pid, "a start")
        until(lambda: lab.status()["exporters"]["lake"]["failed"], "a failed try")
        lab.stop(worker)
    del lab.environment["PYTHONPATH"]
    lab.settings = replace(lab.settings, stop_grace_s=20)
    lab.drain()
    assert lab.names() == ["a"]
    assert lab.letters() == []


def test_a_processor_that_fails_keeps_nothing_out_of_the_lake(lab: Lab, tmp_path: Path) -> None:
    """Where a processor raises on everything, what arrived is in the lake, nothing is set aside, and it is told."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/sitecustomize.py").write_text(
        "from hubscope.processors.kpis import Kpis\n"
        "def broken(self, batch): raise ZeroDivisionError('a bug')\n"
        "Kpis.__call__ = broken\n"
    )
    lab.environment["PYTHONPATH"] = str(tmp_path / "broken")
    for name in "abc":
        lab.add(spans_request(name))
    talk = lab.drain()
    assert lab.names() == ["a", "b", "c"]
    assert lab.letters() == []
    assert lab.status()["processor_failures"] == {"kpis": 3}
    assert "the processor kpis failed and derived nothing: ZeroDivisionError: a bug" in talk


def test_trials_leave_nothing_behind(lab: Lab, tmp_path: Path) -> None:
    """After a request was tried apart, also one that killed its trial, no scratch lake is left in the state folder."""
    lab.kill_on(tmp_path / "deadly")
    lab.add(spans_request("a"), spans_request(KILLER), spans_request("b"))
    assert lab.start().wait(DEADLINE_S) != 0
    lab.drain()
    assert lab.names() == ["a", "b"]
    lab.drain()  # sweeps what a killed trial could not remove
    assert list(lab.state.glob("trial-*")) == []


def test_a_request_that_cannot_be_decoded_is_set_aside(lab: Lab) -> None:
    """Bytes that are no OTLP become a dead letter with the reason, are counted, and the worker lives on."""
    lab.add(spans_request("a"), Record(Signal.TRACES, b"\xff\xff", 1), spans_request("b"))
    worker = lab.start()
    until(lambda: lab.names() == ["a", "b"], "the rest is in the lake")
    until(lambda: lab.status().get("dead_letters") == 1, "it is counted")
    lab.stop(worker)
    (letter,) = lab.letters()
    assert "not an OTLP traces request" in letter["reason"]


def test_a_damaged_segment_gives_what_can_be_read(lab: Lab) -> None:
    """Records before a damaged byte are in the lake, and the whole segment is kept as a dead letter."""
    lab.add(spans_request("a"), spans_request("b"))
    path = sealed_segments(lab.settings.wal_dir)[0]
    data = bytearray(path.read_bytes())
    data[-END_SIZE_BYTES - 1] ^= 1
    path.write_bytes(data)
    worker = lab.start()
    until(lambda: lab.names() == ["a"], "the good record is in the lake")
    lab.stop(worker)
    (letter,) = lab.letters()
    assert "the checksum is wrong" in letter["reason"]
    assert (lab.state / "dead-letter" / letter["payload"]).read_bytes() == bytes(data)


@pytest.mark.parametrize("left", [0, 1])
def test_a_segment_cut_between_records_is_no_silent_loss(lab: Lab, left: int) -> None:
    """Cut to nothing or to a whole record: what is left is in the lake; the rest is said, counted and a dead letter."""
    records = spans_request("a"), spans_request("b")
    lab.add(*records)
    path = sealed_segments(lab.settings.wal_dir)[0]
    os.truncate(path, sum(len(encode(one)) for one in records[:left]))
    lab.add(spans_request("c"))
    worker = lab.start()
    until(lambda: lab.names() == ["a", "c"][1 - left :], "what can be read is in the lake")
    until(lambda: lab.status().get("dead_letters") == 1, "it is counted")
    talk = lab.stop(worker)
    assert "segment 1 is damaged" in talk
    (letter,) = lab.letters()
    assert "its end was cut off" in letter["reason"]


def test_a_trial_whose_worker_was_killed_ends_quietly(lab: Lab) -> None:
    """Nobody reads its answer any more: no traceback, and no scratch lake is left."""
    lab.add(spans_request("a"))
    (path,) = sealed_segments(lab.settings.wal_dir)
    command = [sys.executable, "-m", "hubscope.collector.trial", str(path), str(lab.state)]
    command.append(json.dumps(asdict(ProcessorOptions())))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as trial:
        assert trial.stdin is not None
        assert trial.stdout is not None
        assert trial.stderr is not None
        trial.stdout.close()
        trial.stdin.write("0 1\n")
        trial.stdin.close()
        assert "BrokenPipe" not in trial.stderr.read()
        assert trial.wait(DEADLINE_S) == 0
    assert list(lab.state.glob("trial-*")) == []


def test_a_lake_that_cannot_be_used_ends_with_4(lab: Lab) -> None:
    """A lake whose folder is a file is named on stderr with a remedy, and no traceback."""
    Path(lab.settings.lake).write_text("a file")
    worker = lab.start()
    _, talk = worker.communicate(timeout=DEADLINE_S)
    assert worker.returncode == 4
    assert str(lab.settings.lake) in talk
    assert "Traceback" not in talk


def test_two_workers_do_not_share_a_state_folder(lab: Lab) -> None:
    """A second worker on the same folder waits for the first one and goes on when it is dead."""
    first = _started(lab)
    second = lab.start()
    lab.add(spans_request("a"))
    until(lambda: lab.names() == ["a"], "the first works")
    assert lab.status()["pid"] == first.pid
    first.kill()
    first.wait()
    until(lambda: lab.status().get("pid") == second.pid, "the second took over")
    lab.stop(second)


@pytest.fixture
def destination() -> Iterator[Destination]:
    made = Destination()
    yield made
    made.close()


class Destination:
    """An OTLP/HTTP destination that keeps what it gets; `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.status == 200:
                    outer.bodies.append((self.path, body))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def span_names(self) -> list[str]:
        found = []
        for path, body in self.bodies:
            if path == "/v1/traces":
                for above in ExportTraceServiceRequest.FromString(body).resource_spans:
                    found += [span.name for scope in above.scope_spans for span in scope.spans]
        return sorted(found)

    def metric_names(self) -> set[str]:
        found = set()
        for path, body in self.bodies:
            if path == "/v1/metrics":
                for above in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    found |= {metric.name for scope in above.scope_metrics for metric in scope.metrics}
        return found


def plugin_calls(count: int) -> Record:
    """Spans that the shipped rules make KPI points of: plugin calls of 10 ms under a root operation."""
    request = ExportTraceServiceRequest()
    above = request.resource_spans.add()
    above.resource.attributes.add(key="service.name").value.string_value = "hub"
    spans = above.scope_spans.add().spans
    start = time.time_ns() - 10**9
    for number in range(count):
        trace_id = number.to_bytes(16, "big") if number else b"\x01" * 16
        spans.add(
            name="GET /", trace_id=trace_id, span_id=b"r" * 8, kind=2, start_time_unix_nano=start,
            end_time_unix_nano=start + 30_000_000,
        )  # fmt: skip
        span = spans.add(
            name="plugin p render", trace_id=trace_id, span_id=b"p" * 8, parent_span_id=b"r" * 8, kind=1,
            start_time_unix_nano=start, end_time_unix_nano=start + 10_000_000,
        )  # fmt: skip
        for key, value in (("hub.plugin.id", "p"), ("hub.plugin.hook", "render")):
            span.attributes.add(key=key).value.string_value = value
    return Record(Signal.TRACES, request.SerializeToString(), time.time_ns())


def test_what_arrived_and_what_was_derived_is_forwarded(lab: Lab, destination: Destination) -> None:
    """A destination gets every span, and the derived points as OTLP, the same that stand in the lake."""
    lab.settings = replace(lab.settings, forward=(ForwardConfig("there", destination.url),))
    worker = _started(lab)
    lab.add(spans_request("a", "b"))
    lab.add(plugin_calls(3))
    until(lambda: not sealed_segments(lab.settings.wal_dir), "both have it")
    lab.stop(worker)
    assert destination.span_names() == sorted(["a", "b", *(["GET /", "plugin p render"] * 3)])
    derived = set()
    for table in (GAUGE, EXPONENTIAL_HISTOGRAM):
        found = DeltaTable(f"{lab.settings.lake}/{table}").to_pyarrow_table(columns=["MetricName"])
        derived |= set(found["MetricName"].to_pylist())
    assert METRIC_PLUGIN_OVERHEAD in derived
    assert METRIC_KPI in derived
    assert destination.metric_names() == derived
    assert "hub" in {kpi["service"] for kpi in lab.status()["kpis"]}
    assert not list((lab.state / "derived").glob("*"))


def test_a_destination_that_is_down_delays_nobody(lab: Lab, destination: Destination) -> None:
    """The lake has everything while a destination refuses; when it is back, also after a restart, it gets the rest."""
    destination.status = 503
    lab.settings = replace(lab.settings, forward=(ForwardConfig("there", destination.url),), stop_grace_s=1.0)
    worker = _started(lab)
    for number in range(3):
        lab.add(spans_request(f"s{number}"))
    until(lambda: lab.names() == ["s0", "s1", "s2"], "the lake has it")
    until(lambda: "503" in lab.status()["exporters"]["there"]["last_error"], "the refusal is told")
    assert len(sealed_segments(lab.settings.wal_dir)) == 3
    lab.stop(worker)
    destination.status = 200
    again = lab.start()
    until(lambda: not sealed_segments(lab.settings.wal_dir), "the destination has it")
    lab.stop(again)
    assert destination.span_names() == ["s0", "s1", "s2"]
    assert lab.names() == ["s0", "s1", "s2"]


def test_a_destination_that_stays_down_is_bounded(lab: Lab, destination: Destination) -> None:
    """Where more waits for a destination than half of the log, the oldest is passed over and counted."""
    destination.status = 503
    lab.settings = replace(
        lab.settings,
        forward=(ForwardConfig("there", destination.url),),
        limits=Limits(log_size_bytes=400),
        stop_grace_s=1.0,
    )
    worker = _started(lab)
    for number in range(6):
        lab.add(spans_request(f"s{number}"))
    until(lambda: lab.status()["exporters"]["there"]["dropped"] > 0, "the oldest are given up")
    until(lambda: len(lab.names()) == 6, "the lake has everything")
    lab.stop(worker)


def test_a_worker_ends_with_its_supervisor(lab: Lab) -> None:
    """When the pipe that the supervisor holds ends, even before the worker is up, it drains and ends."""
    lab.add(spans_request("a"))
    worker = lab.start(stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(timeout=DEADLINE_S) == 0
    assert lab.names() == ["a"]

"""Processors in a real collector: what they do is in the lake, in what is forwarded, and told."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from deltalake import DeltaTable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.segments import ChangedLog
from hubscope.errors import LakeError

PASSWORD = "hunter2-is-secret"


class Destination:
    """An OTLP/HTTP destination that keeps the spans that it gets."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/v1/traces":
                    outer.bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def destination() -> Iterator[Destination]:
    made = Destination()
    yield made
    made.close()


def _send(collector: Any, request: ExportTraceServiceRequest) -> None:
    with grpc.insecure_channel(collector.addresses["grpc"]) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        export(request.SerializeToString(), timeout=20)


def _spans(*attributes: dict[str, str]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    spans = resource.scope_spans.add().spans
    for number, more in enumerate(attributes, start=1):
        span = spans.add(name="s", trace_id=bytes([number]) * 16, span_id=bytes([number]) * 8)
        span.start_time_unix_nano = span.end_time_unix_nano = 1_800_000_000_000_000_000
        for key, text in more.items():
            span.attributes.add(key=key).value.string_value = text
    return request


def _rows(collector: Any, *columns: str) -> list[dict[str, Any]]:
    if not (collector.lake / "otel_traces" / "_delta_log").is_dir():
        return []
    table = DeltaTable(str(collector.lake / "otel_traces")).to_pyarrow_table(columns=list(columns))
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_secret_is_in_no_file_of_the_lake_and_leaves_to_nobody(
    new_collector: Callable[..., Any], destination: Destination
) -> None:
    """Rows and forwarded requests are without it, requests without a hit go on byte for byte, and it is told."""
    collector = new_collector("--forward", destination.url)
    collector.start()
    clean = _spans({"db.query.text": "SELECT 1"})
    _send(collector, clean)
    url = f"postgresql://ada:{PASSWORD}@db/hub"
    _send(collector, _spans({"url.full": url}, {"db.query.text": "SELECT 2"}, {"db.password": PASSWORD}))
    collector.wait_for(lambda: len(_rows(collector, "SpanId")) == 4, "the rows are in the lake")
    collector.wait_for(lambda: len(b"".join(destination.bodies)) > 400, "both requests are forwarded")
    collector.wait_for(lambda: collector.health().get("processors", {}).get("redaction"), "it is told")
    assert collector.health()["processors"]["redaction"] == {"key": 1, "url_password": 1}
    with urllib.request.urlopen(f"http://{collector.addresses['telemetry']}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    assert "hubscope_processor_redaction_url_password_total 1" in metrics
    told = subprocess.run(
        [sys.executable, "-m", "hubscope.console", "status", "--lake", str(collector.lake)],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "redacted   1 key, 1 url password" in told
    forwarded = b"".join(destination.bodies)
    assert clean.SerializeToString() in forwarded
    assert PASSWORD.encode() not in forwarded
    spans = [
        span for above in ExportTraceServiceRequest.FromString(forwarded).resource_spans
        for scope in above.scope_spans for span in scope.spans
    ]  # fmt: skip
    stored = [dict(row["SpanAttributes"]) for row in _rows(collector, "SpanAttributes")]
    assert sorted(json.dumps(attributes) for attributes in stored) == [
        '{"db.password": "****", "hub.redacted": "[\\"db.password\\"]"}',
        '{"db.query.text": "SELECT 1"}',
        '{"db.query.text": "SELECT 2"}',
        '{"url.full": "postgresql://ada:****@db/hub", "hub.redacted": "[\\"url.full\\"]"}',
    ]
    assert len(spans) == 4
    assert collector.stop() == 0
    for path in [path for path in Path(collector.lake).rglob("*") if path.is_file()]:
        assert PASSWORD.encode() not in path.read_bytes(), path


def test_redaction_can_be_switched_off(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """Whoever says so keeps what was sent; enrichment and limits are set in the same file."""
    config = tmp_path / "c.toml"
    config.write_text(
        "[processors.redaction]\nenabled = false\n"
        "[processors.attribute_limits]\ncount = 1\n"
        '[processors.enrichment.attributes]\n"deployment.environment.name" = "test"\n'
    )
    collector = new_collector("--config", str(config))
    collector.start()
    _send(collector, _spans({"db.password": PASSWORD, "more": "than one"}))
    collector.wait_for(lambda: _rows(collector, "SpanId"), "the row is in the lake")
    [row] = _rows(collector, "SpanAttributes", "ResourceAttributes", "DroppedAttributesCount")
    assert row == {
        "SpanAttributes": [("db.password", PASSWORD)],
        "ResourceAttributes": [("service.name", "shop"), ("deployment.environment.name", "test")],
        "DroppedAttributesCount": 1,
    }
    assert collector.stop() == 0


def test_what_was_changed_is_applied_or_nothing_is(tmp_path: Path) -> None:
    """Changed requests stand in their place, withheld ones are left out, and a damaged list gives nothing away."""
    log = ChangedLog(tmp_path)
    records = [Record(Signal.TRACES, payload, 1) for payload in (b"a", b"b", b"c")]
    assert log.applied(7, records) == records
    log.keep(7, records, {0: b"A", 2: b""})
    assert [record.payload for record in log.applied(7, records)] == [b"A", b"b"]
    [path] = (tmp_path / "changed").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(LakeError):
        log.applied(7, records)
    log.keep(7, records, {})  # the segment again, with redaction switched off meanwhile
    assert log.applied(7, records) == records


SAMPLED = """
[processors.sampling]
enabled = true
ratio = {ratio}
decision_wait = "{wait}"
slow_percentile = 0
"""


def _traces(seed: int, count: int, failed: int = 0) -> ExportTraceServiceRequest:
    """Traces of two spans each; the first `failed` of them have an error."""
    chance = random.Random(seed)
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(count):
        trace_id, root_id, now_ns = chance.randbytes(16), chance.randbytes(8), time.time_ns()
        for name, span_id, parent_id in (("root", root_id, b""), ("child", chance.randbytes(8), root_id)):
            span = spans.add(trace_id=trace_id, span_id=span_id, parent_span_id=parent_id, name=name)
            span.start_time_unix_nano, span.end_time_unix_nano = now_ns, now_ns + 1_000_000
            span.status.code = 2 if number < failed and name == "child" else 0
    return request


def _ids(request: ExportTraceServiceRequest, failed: int) -> set[str]:
    """Span ids of the first `failed` traces."""
    return {span.span_id.hex() for span in request.resource_spans[0].scope_spans[0].spans[: 2 * failed]}


def test_an_idle_collector_decides_and_a_stopped_one_too(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing more needs to come for a trace to be decided; a stop decides what waits, so that the lake has it."""
    config = tmp_path / "c.toml"
    config.write_text(SAMPLED.format(ratio=0, wait="1s"))
    collector = new_collector("--config", str(config))
    collector.start()
    first = _traces(1, 20, failed=3)
    _send(collector, first)
    collector.wait_for(lambda: len(_rows(collector, "SpanId")) == 6, "what stays is in the lake")
    assert collector.stop() == 0
    config.write_text(SAMPLED.format(ratio=0, wait="1h"))
    collector.start()
    second = _traces(2, 20, failed=2)
    _send(collector, second)
    assert collector.stop() == 0, collector.output
    found = _rows(collector, "SpanId", "TraceState")
    assert {row["SpanId"] for row in found} == _ids(first, 3) | _ids(second, 2)
    assert {row["TraceState"] for row in found} == {"ot=th:0"}


def test_kills_lose_no_trace_that_stays_and_store_none_twice(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """kill -9 of worker, front and all, while traces wait: errors are whole, the share is a share, none twice."""
    config = tmp_path / "c.toml"
    config.write_text(SAMPLED.format(ratio=0.25, wait="2s"))
    collector = new_collector("--config", str(config))
    collector.start()
    chance = random.Random(5)
    must, sent = set(), 0
    for turn in range(6):
        for part in range(4):
            request = _traces(100 * turn + part, 50, failed=5)
            _send(collector, request)
            must |= _ids(request, 5)
            sent += 100
        before = len(_rows(collector, "SpanId"))
        if turn:
            collector.wait_for(lambda before=before: len(_rows(collector, "SpanId")) > before, "decisions go on")
        threading.Event().wait(chance.random() * 0.5)
        victim = ("worker", "everything", "front")[turn % 3]
        if victim == "everything":
            collector.kill_all()
            collector.start()
        elif pid := collector.pid_of(victim):
            os.kill(pid, signal.SIGKILL)
            collector.wait_for(lambda: collector._ready(), "the front is back", 40)
    assert collector.stop() == 0, collector.output
    found = _rows(collector, "SpanId", "TraceId", "SpanAttributes")
    ids = [row["SpanId"] for row in found]
    assert len(ids) == len(set(ids))
    assert must <= set(ids)
    by_trace: dict[str, int] = {}
    for row in found:
        by_trace[row["TraceId"]] = by_trace.get(row["TraceId"], 0) + 1
    assert set(by_trace.values()) == {2}
    standing = sum(float(dict(row["SpanAttributes"]).get("hub.sampling.adjusted_count", 1)) for row in found)
    ordinary = (sent - len(must)) // 2
    assert abs(standing - sent) <= 2 * 5 * (ordinary * 3) ** 0.5  # five deviations of a binomial of 1/4, two spans each


def test_a_destination_gets_all_or_the_sample(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """One destination takes every span as it comes, another what sampling keeps, marked, with the added attributes."""
    everything, sample = Destination(), Destination()
    config = tmp_path / "c.toml"
    config.write_text(
        SAMPLED.format(ratio=0.5, wait="500ms")
        + '[processors.enrichment.attributes]\nteam = "hub"\n'
        + f'[[exporters.forward]]\nname = "all"\nurl = "{everything.url}"\n'
        + f'[[exporters.forward]]\nname = "some"\nurl = "{sample.url}"\nsampled = true\nenriched = true\n'
    )
    collector = new_collector("--config", str(config))
    collector.start()
    request = _traces(1, 200, failed=10)
    _send(collector, request)
    collector.wait_for(lambda: len(_rows(collector, "SpanId")) > 100, "the sample is in the lake")
    assert collector.stop() == 0
    stored = {row["SpanId"]: row["TraceState"] for row in _rows(collector, "SpanId", "TraceState")}
    got = {name: ExportTraceServiceRequest.FromString(b"".join(d.bodies)) for name, d in
           (("all", everything), ("some", sample))}  # fmt: skip
    assert got["all"] == request
    spans = [s for above in got["some"].resource_spans for scope in above.scope_spans for s in scope.spans]
    assert {span.span_id.hex(): span.trace_state for span in spans} == stored
    assert {"ot=th:0", "ot=th:8"} == set(stored.values())
    assert [[pair.key for pair in above.resource.attributes] for above in got["some"].resource_spans] == [["team"]]
    everything.close()
    sample.close()

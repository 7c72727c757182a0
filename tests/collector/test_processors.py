"""Processors in a real collector: what they do is in the lake, in what is forwarded, and told."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
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
    """An OTLP/HTTP destination that keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))))
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

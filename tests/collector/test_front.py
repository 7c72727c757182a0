"""The front process over real sockets: both transports, both encodings, limits, errors, overload."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import CollectorSettings, Limits, Security
from hubscope.collector.log import wal

MIB = 1024 * 1024
PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def request_bytes(spans: int = 1, name: str = "x", seed: int | None = None) -> bytes:
    """An export request with that many spans of fresh ids."""
    chance = random.Random(seed)
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(spans):
        scope.spans.add(trace_id=chance.randbytes(16), span_id=chance.randbytes(8), name=name)
    return request.SerializeToString()


class Front:
    """One front process, without a worker: what it acknowledged stays in the log."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        any_port = Address("127.0.0.1", 0)
        self.settings = CollectorSettings(
            lake=str(folder),
            state_dir=str(folder / ".state"),
            grpc=any_port,
            http=any_port,
            telemetry=any_port,
            **changes,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hubscope.collector.front", "--settings-json", self.settings.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.ports = json.loads(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.ports['http']}"
        self.telemetry = f"http://127.0.0.1:{self.ports['telemetry']}"

    def export(self, payload: bytes, **more: Any) -> bytes:
        """One gRPC Export of traces."""
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['grpc']}", options) as channel:
            return bytes(channel.unary_unary(EXPORT)(payload, timeout=20, **more))

    def stop(self) -> list[wal.Record]:
        """End it by closing its standard input, as a dying supervisor does; returns what is in the log."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        return [r for path in wal.sealed_segments(self.settings.wal_dir) for r in wal.read_segment(path)]


@pytest.fixture
def new_front(tmp_path: Path) -> Iterator[Callable[..., Front]]:
    """`new_front(**settings)`: a front of its own."""
    made: list[Front] = []

    def make(**changes: Any) -> Front:
        made.append(Front(tmp_path / f"lake-{len(made)}", **changes))
        return made[-1]

    yield make
    for front in made:
        front.process.kill()
        front.process.wait()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A front with a limit of 1 MiB that many tests share."""
    limits = Limits(request_size_bytes=MIB, waiting_size_bytes=8 * MIB)
    shared = Front(tmp_path_factory.mktemp("front"), limits=limits)
    yield shared
    shared.process.kill()
    shared.process.wait()


def status_of(response: httpx.Response) -> Status:
    """The Status of an error, whose body must be in the request's type."""
    assert response.headers["content-type"] == "application/x-protobuf"
    return Status.FromString(response.content)


def test_what_is_acknowledged_is_in_the_log(new_front: Callable[..., Front]) -> None:
    """gRPC and HTTP, plain and gzip, protobuf and JSON: each acknowledged request is in the log, byte for byte."""
    front = new_front()
    sent = [request_bytes(3, seed=i) for i in range(4)]
    assert front.export(sent[0]) == b""
    assert front.export(sent[1], compression=grpc.Compression.Gzip) == b""
    for headers, body in ((PROTOBUF, sent[2]), ({**PROTOBUF, "Content-Encoding": "GZIP"}, gzip.compress(sent[3]))):
        response = httpx.post(f"{front.url}/v1/traces", content=body, headers=headers)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"] == "application/x-protobuf"
    assert sorted(r.payload for r in front.stop()) == sorted(sent)


def test_json_becomes_the_same_protobuf(new_front: Callable[..., Front]) -> None:
    """A JSON request is answered in JSON without partialSuccess, and logged as protobuf."""
    front = new_front()
    span = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "name": "j", "kind": 2}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}], "unknown": 1})
    response = httpx.post(
        f"{front.url}/v1/traces", content=body, headers={"Content-Type": "Application/JSON; charset=x"}
    )
    assert (response.status_code, response.json()) == (200, {})
    (record,) = front.stop()
    logged = ExportTraceServiceRequest.FromString(record.payload).resource_spans[0].scope_spans[0].spans[0]
    assert (logged.trace_id.hex(), logged.span_id.hex(), logged.kind) == (span["traceId"].lower(), span["spanId"], 2)


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/metrics", "/v1/logs"])
def test_an_empty_request_succeeds(front: Front, path: str) -> None:
    """No items is a success, in either encoding."""
    assert httpx.post(f"{front.url}{path}", content=b"", headers=PROTOBUF).status_code == 200
    assert httpx.post(f"{front.url}{path}", content=b"{}", headers=JSON).json() == {}
    assert front.export(b"") == b""


def test_a_chunked_body_is_read(front: Front) -> None:
    """A body without Content-Length is not taken as empty."""

    def parts() -> Iterator[bytes]:
        body = request_bytes()
        yield body[:10]
        yield body[10:] + b"\xff"

    response = httpx.post(f"{front.url}/v1/traces", content=parts(), headers=PROTOBUF)
    assert response.status_code == 400, "the last byte is wrong, so it was read"


def test_bad_bytes_are_a_bad_request(front: Front) -> None:
    """Bytes that are no OTLP: 400 with BadRequest on HTTP, INVALID_ARGUMENT with the same detail on gRPC."""
    response = httpx.post(f"{front.url}/v1/traces", content=b"\xff\xff\xff", headers=PROTOBUF)
    assert response.status_code == 400
    details = BadRequest()
    assert status_of(response).code == 3
    assert status_of(response).details[0].Unpack(details)
    with pytest.raises(grpc.RpcError) as caught:
        front.export(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert rpc_status.from_call(caught.value).details[0].Unpack(details)


def test_ids_of_a_wrong_length_are_a_bad_request(new_front: Callable[..., Front]) -> None:
    """400 and INVALID_ARGUMENT that name the field and the count, in protobuf and JSON; nothing of it is taken."""
    front = new_front()
    request = ExportTraceServiceRequest.FromString(request_bytes(3))
    for span in list(request.resource_spans[0].scope_spans[0].spans)[:2]:
        span.trace_id = b"x" * 15
    sentence = "spans with a trace_id of 15 B instead of 16 B: 2"
    response = httpx.post(f"{front.url}/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    details = BadRequest()
    assert (response.status_code, status_of(response).code, status_of(response).message) == (400, 3, sentence)
    assert status_of(response).details[0].Unpack(details)
    assert "a trace id has 16 B" in details.field_violations[0].description
    with pytest.raises(grpc.RpcError) as caught:
        front.export(request.SerializeToString())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)
    records = [{"traceId": "ab" * 8, "spanId": "cd" * 8}, {"traceId": "", "spanId": "cd" * 4}, {"spanId": "cd"}]
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})
    response = httpx.post(f"{front.url}/v1/logs", content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, 3)
    assert response.json()["message"] == (
        "log records with a trace_id of 8 B instead of 16 B: 1; "
        "log records with a span_id of 4 B, 1 B instead of 8 B: 2"
    )
    assert (
        'hubscope_receiver_requests_total{transport="http",outcome="bad"} 2'
        in httpx.get(f"{front.telemetry}/metrics").text
    )
    empty = ExportTraceServiceRequest()
    empty.resource_spans.add().scope_spans.add().spans.add(name="without ids")
    assert front.export(empty.SerializeToString()) == b"", "as the stock Collector"
    assert [record.payload for record in front.stop()] == [empty.SerializeToString()]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"resourceSpans": 3}', b'"\xff"', b"[" * 100_000, b"", b"nul"])
def test_bad_json_is_a_bad_request(front: Front, body: bytes) -> None:
    """Whatever is no OTLP/JSON is a 400 whose body is JSON."""
    response = httpx.post(f"{front.url}/v1/traces", content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, 3)
    assert len(response.content) < 4000


def test_a_truncated_gzip_is_a_bad_request(front: Front) -> None:
    """Half of a gzip body, or none at all behind the header, is a 400."""
    for body in (gzip.compress(request_bytes(100))[:-20], b"no gzip"):
        response = httpx.post(f"{front.url}/v1/traces", content=body, headers={**PROTOBUF, "Content-Encoding": "gzip"})
        assert response.status_code == 400
        assert "gzip" in status_of(response).message


def test_the_limit_counts_after_decompression(front: Front) -> None:
    """Beyond the limit: 413 and RESOURCE_EXHAUSTED without a retry hint, however small the request was sent."""
    large = request_bytes(1, name="y" * MIB)
    for headers, body in ((PROTOBUF, large), ({**PROTOBUF, "Content-Encoding": "gzip"}, gzip.compress(large))):
        response = httpx.post(f"{front.url}/v1/traces", content=body, headers=headers)
        assert response.status_code == 413
        assert status_of(response).code == 8
        assert "retry-after" not in response.headers
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with pytest.raises(grpc.RpcError) as caught:
            front.export(large, compression=compression)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "google.rpc.retryinfo-bin" not in dict(caught.value.trailing_metadata() or ())


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("POST", "/v1/trace", PROTOBUF, 404),
        ("GET", "/v1/traces", PROTOBUF, 405),
        ("OPTIONS", "/v1/traces", PROTOBUF, 405),
        ("POST", "/v1/traces", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/traces", {}, 415),
        ("POST", "/v1/traces", {**PROTOBUF, "Content-Encoding": "br"}, 415),
    ],
)
def test_wrong_requests_say_what_is_right(
    front: Front, method: str, path: str, headers: dict[str, str], code: int
) -> None:
    """404, 405, 413 and 415 carry a Status too, 405 the allowed method, and nobody gets CORS headers unasked."""
    response = httpx.request(method, f"{front.url}{path}", headers={**headers, "Origin": "http://evil.example"})
    assert response.status_code == code
    message = status_of(response).message if "Content-Type" in headers and code != 415 else ""
    assert message or response.content
    assert ("allow" in response.headers) == (code == 405)
    assert "access-control-allow-origin" not in response.headers


def test_an_absolute_target_is_understood(front: Front) -> None:
    """A request line with the whole URL, as proxies send it, is the same request."""
    connection = http.client.HTTPConnection("127.0.0.1", front.ports["http"], timeout=10)
    connection.request("POST", f"{front.url}/v1/traces", b"", PROTOBUF)
    assert connection.getresponse().status == 200
    connection.close()


def test_idle_connections_and_slow_bodies_disturb_nobody(front: Front) -> None:
    """With 300 silent connections and a request that never ends, others are answered."""
    silent = [socket.create_connection(("127.0.0.1", front.ports["http"])) for _ in range(300)]
    silent[0].sendall(
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    try:
        assert httpx.post(f"{front.url}/v1/traces", content=request_bytes(), headers=PROTOBUF).status_code == 200
        assert front.export(request_bytes()) == b""
    finally:
        for connection in silent:
            connection.close()


def test_a_full_log_refuses_retryably(new_front: Callable[..., Front]) -> None:
    """Beyond its bound: 503 with Retry-After, UNAVAILABLE with RetryInfo in both trailers; what it had is kept."""
    front = new_front(limits=Limits(log_size_bytes=200_000))
    kept = request_bytes(1, name="z" * 150_000)
    assert front.export(kept) == b""
    with pytest.raises(grpc.RpcError) as caught:
        front.export(request_bytes(1, name="w" * 150_000))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    retry = RetryInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(retry)
    assert retry == RetryInfo.FromString(dict(caught.value.trailing_metadata())["google.rpc.retryinfo-bin"])
    assert retry.retry_delay.seconds == 5
    refused = httpx.post(f"{front.url}/v1/traces", content=kept, headers=PROTOBUF)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert front.stop()[0].payload == kept


def test_a_nearly_full_disk_refuses_and_says_so(new_front: Callable[..., Front]) -> None:
    """Less free disk than asked for: refused retryably, and /healthz answers 503 with the reason."""
    front = new_front(limits=Limits(free_disk_bytes=10**18))
    response = httpx.post(f"{front.url}/v1/traces", content=request_bytes(), headers=PROTOBUF)
    assert response.status_code == 503
    assert "disk is nearly full" in status_of(response).message
    health = httpx.get(f"{front.telemetry}/healthz")
    assert (health.status_code, health.json()["status"]) == (503, "refusing")
    assert front.stop() == []


def test_a_token_is_asked_for(new_front: Callable[..., Front]) -> None:
    """With bearer tokens configured, both transports and the telemetry refuse whoever has none of them."""
    front = new_front(security=Security(bearer_tokens=("s3cret",), cors_allowed_origins=("http://ui.example",)))
    body = request_bytes()
    assert httpx.post(f"{front.url}/v1/traces", content=body, headers=PROTOBUF).status_code == 401
    assert httpx.get(f"{front.telemetry}/metrics").status_code == 401
    with pytest.raises(grpc.RpcError) as caught:
        front.export(body, metadata=(("authorization", "Bearer wrong"),))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    allowed = {**PROTOBUF, "Authorization": "Bearer s3cret", "Origin": "http://ui.example"}
    response = httpx.post(f"{front.url}/v1/traces", content=body, headers=allowed)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "http://ui.example")
    assert front.export(body, metadata=(("authorization", "bearer s3cret"),)) == b""


def test_metrics_are_what_prometheus_reads(new_front: Callable[..., Front]) -> None:
    """/metrics parses, and counts what was accepted by transport under the stock Collector's name."""
    front = new_front()
    front.export(request_bytes(5))
    httpx.post(f"{front.url}/v1/traces", content=request_bytes(2), headers=PROTOBUF)
    families = {f.name: f for f in text_string_to_metric_families(httpx.get(f"{front.telemetry}/metrics").text)}
    samples = families["otelcol_receiver_accepted_spans"].samples
    assert {s.labels["transport"]: s.value for s in samples} == {"grpc": 5, "http": 2}


def test_after_a_kill_a_repeated_request_is_not_stored_twice(new_front: Callable[..., Front], tmp_path: Path) -> None:
    """A request that a killed front had logged but perhaps not answered is acknowledged again, and kept once."""
    body = request_bytes(4)
    first = new_front()
    first.export(body)
    first.process.kill()
    first.process.wait()
    second = Front(Path(first.settings.lake))
    try:
        assert second.export(body) == b""
        assert [r.payload for r in second.stop()] == [body]
    finally:
        second.process.kill()

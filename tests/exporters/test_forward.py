"""The forwarder against real gRPC and HTTP servers on free ports."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
import zstandard
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from hubscope.collector.log.wal import Record, Signal
from hubscope.errors import ConfigError, RetryableError
from hubscope.exporters.forward import MAX_REQUEST_BYTES, ForwardConfig, ForwardExporter, merged, transport
from hubscope.exporters.forward_grpc import GrpcTransport
from hubscope.exporters.forward_http import HttpTransport
from hubscope.exporters.retry_after import of_http
from hubscope.processors.batch import Batch


def spans(*names: str) -> Record:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for name in names:
        scope.spans.add(name=name)
    return Record(Signal.TRACES, request.SerializeToString(), 1)


def logs(body: str) -> Record:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = body
    return Record(Signal.LOGS, request.SerializeToString(), 1)


def span_names(bodies: list[bytes]) -> list[str]:
    found = []
    for body in bodies:
        for above in ExportTraceServiceRequest.FromString(body).resource_spans:
            found += [span.name for scope in above.scope_spans for span in scope.spans]
    return found


UNPACK: dict[str | None, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompress(body),
    None: lambda body: body,
}


class Destination:
    """What arrived, and what to answer next: a code with details, or a response's bytes."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Any] = []

    def of(self, part: str) -> list[bytes]:
        return [body for path, body in self.bodies if part in path]

    def next_answer(self) -> Any:
        return self.answers.pop(0) if self.answers else b""


@pytest.fixture
def grpc_destination() -> Iterator[Destination]:
    destination = Destination()

    def handle(path: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def call(body: bytes, context: grpc.ServicerContext) -> bytes:
            destination.headers.append({str(key): str(value) for key, value in context.invocation_metadata()})
            answer = destination.next_answer()
            if isinstance(answer, tuple):
                code, details = answer
                metadata = details if isinstance(details, dict) else {"grpc-status-details-bin": details}
                context.set_trailing_metadata(tuple((k, v) for k, v in metadata.items() if v))
                context.abort(code, "said no")
            destination.bodies.append((path, body))
            return bytes(answer)

        return call

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(handle(details.method))

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=(Handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        destination.url = f"grpc://127.0.0.1:{port}"
        yield destination
        server.stop(None).wait()


@pytest.fixture
def http_destination() -> Iterator[Destination]:
    destination = Destination()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            destination.headers.append(dict(self.headers))
            answer = destination.next_answer()
            status, headers, data = answer if isinstance(answer, tuple) else (200, {}, answer)
            if status == 200:
                destination.bodies.append((self.path, UNPACK[self.headers["Content-Encoding"]](body)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    destination.url = f"http://127.0.0.1:{server.server_port}"
    yield destination
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["grpc_destination", "http_destination"])
def destination(request: pytest.FixtureRequest) -> Destination:
    found: Destination = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def exporter(destination: Destination) -> Iterator[ForwardExporter]:
    made = ForwardExporter(ForwardConfig("there", destination.url, (("X-Token", "t"),), timeout_s=5))
    yield made
    made.close()


def test_requests_arrive_as_they_were(destination: Destination, exporter: ForwardExporter) -> None:
    """Spans and logs arrive complete, at the method or path of their signal, with the configured headers."""
    exporter.export(Batch(1, 1), [spans("a", "b"), spans("c"), logs("hello")])
    assert span_names(destination.of("race")) == ["a", "b", "c"]
    (body,) = destination.of("ogs")
    assert body == logs("hello").payload
    assert {name.lower(): value for name, value in destination.headers[0].items()}["x-token"] == "t"
    assert (exporter.sent, exporter.dropped) == (3, 0)


def test_a_failed_segment_goes_on_where_it_stopped(destination: Destination, exporter: ForwardExporter) -> None:
    """After a retryable refusal the next call sends what is missing, and only that."""
    unavailable = (grpc.StatusCode.UNAVAILABLE, None) if destination.url.startswith("grpc") else (503, {}, b"")
    destination.answers = [b"", unavailable]
    records = [spans("a"), logs("b"), spans("c")]
    with pytest.raises(RetryableError):
        exporter.export(Batch(1, 1), records)
    exporter.export(Batch(1, 1), records)
    assert span_names(destination.of("race")) == ["a", "c"]
    assert len(destination.of("ogs")) == 1
    assert exporter.sent == 3


def test_what_is_refused_for_good_is_counted_and_passed(destination: Destination, exporter: ForwardExporter) -> None:
    """A signal that the destination does not take is dropped with its reason, and the others arrive."""
    unimplemented = (grpc.StatusCode.UNIMPLEMENTED, None) if destination.url.startswith("grpc") else (404, {}, b"")
    destination.answers = [unimplemented]
    exporter.export(Batch(1, 1), [logs("x"), spans("a")])
    assert span_names(destination.of("race")) == ["a"]
    assert (exporter.sent, exporter.dropped) == (1, 1)
    assert "UNIMPLEMENTED" in exporter.last_refusal or "404" in exporter.last_refusal


@pytest.mark.parametrize("status", [401, 403, 404, 415, 307])
def test_a_destination_that_takes_nothing_is_waited_for(
    destination: Destination, exporter: ForwardExporter, status: int
) -> None:
    """Without a token it would take, or under another path, nothing is dropped; once that is mended all arrives."""
    codes = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}
    is_grpc = destination.url.startswith("grpc")
    no: Any = (codes.get(status, grpc.StatusCode.UNIMPLEMENTED), None) if is_grpc else (status, {}, b"")
    records = [spans("a"), logs("x"), spans("b")]
    destination.answers = [no] * 3  # the spans, and an empty request of each other signal
    with pytest.raises(RetryableError) as refusal:
        exporter.export(Batch(1, 1), records)
    assert "mend its url, headers or tls" in refusal.value.remedy
    assert (exporter.sent, exporter.dropped, destination.bodies) == (0, 0, [])
    exporter.export(Batch(1, 1), records)
    destination.answers = [no]  # a token that is taken away: it took spans before, so it is asked for nothing else
    with pytest.raises(RetryableError):
        exporter.export(Batch(2, 2), [spans("c")])
    exporter.export(Batch(2, 2), [spans("c")])
    assert span_names(destination.of("race")) == ["a", "b", "c"]
    assert (exporter.sent, exporter.dropped) == (4, 0)


def test_partial_success_is_told_and_not_retried(destination: Destination, exporter: ForwardExporter) -> None:
    """Spans that an accepting destination refuses are counted with its message."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "too old"
    destination.answers = [answer.SerializeToString()]
    exporter.export(Batch(1, 1), [spans("a", "b", "c")])
    assert (exporter.sent, exporter.rejected_items) == (1, 2)
    assert "too old" in exporter.last_refusal


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [("7", 7.0), ("99999999999999", 300.0), ("-3", 0.0), ("soon", 0.0), ("", 0.0), (None, 0.0)],
)
def test_http_says_when_to_come_again(http_destination: Destination, header: str | None, expected_s: float) -> None:
    """Retry-After becomes the error's time to wait, at most five minutes; what is no time is none."""
    headers = {"Retry-After": header} if header is not None else {}
    http_destination.answers = [(429, headers, b"")]
    exporter = ForwardExporter(ForwardConfig("there", http_destination.url))
    with pytest.raises(RetryableError) as caught:
        exporter.export(Batch(1, 1), [spans("a")])
    assert caught.value.retry_after_s == expected_s
    exporter.close()


def test_http_says_it_with_a_date() -> None:
    """Retry-After's other form: a date, which is a delay from now; a past one is none."""
    assert of_http("Sun, 06 Nov 1994 08:49:37 GMT", now_s=784111777.0 - 90) == 90.0
    assert of_http("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0


def retry_info(seconds: float) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(int(seconds * 1000))
    return info


def in_status(info: RetryInfo) -> bytes:
    detail = AnyMessage()
    detail.Pack(info)
    return bytes(Status(code=8, details=[detail]).SerializeToString())


@pytest.mark.parametrize(
    "metadata",
    [
        {"grpc-status-details-bin": in_status(retry_info(2.5))},
        {"google.rpc.retryinfo-bin": retry_info(2.5).SerializeToString()},
        {"grpc-status-details-bin": b"\xff", "google.rpc.retryinfo-bin": retry_info(2.5).SerializeToString()},
    ],
)
def test_grpc_says_when_to_come_again(grpc_destination: Destination, metadata: dict[str, bytes]) -> None:
    """RetryInfo counts among the status's details and alone; RESOURCE_EXHAUSTED is retryable with it only."""
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    grpc_destination.answers = [(exhausted, metadata), (exhausted, None)]
    exporter = ForwardExporter(ForwardConfig("there", grpc_destination.url))
    with pytest.raises(RetryableError) as caught:
        exporter.export(Batch(1, 1), [spans("a")])
    assert caught.value.retry_after_s == 2.5
    exporter.export(Batch(1, 1), [spans("a")])
    assert exporter.dropped == 1
    exporter.close()


def test_one_bad_request_takes_no_other_with_it(destination: Destination, exporter: ForwardExporter) -> None:
    """Where a merged request is refused for its content, its parts are sent alone, and the guilty one is dropped."""
    bad = (grpc.StatusCode.INVALID_ARGUMENT, None) if destination.url.startswith("grpc") else (400, {}, b"")
    unavailable = (grpc.StatusCode.UNAVAILABLE, None) if destination.url.startswith("grpc") else (503, {}, b"")
    destination.answers = [bad, b"", bad, unavailable, b"", b""]  # all; a, b, c; then, called again, c and d
    records = [spans(name) for name in "abcd"]
    with pytest.raises(RetryableError):
        exporter.export(Batch(1, 1), records)
    assert exporter.sent_of(1) == 2
    exporter.export(Batch(1, 1), records)
    assert span_names(destination.of("race")) == ["a", "c", "d"]
    assert (exporter.sent, exporter.dropped, exporter.sent_of(1)) == (3, 1, 4)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_http_compresses_as_told(http_destination: Destination, compression: str) -> None:
    """The body arrives under the content coding that the settings name."""
    exporter = ForwardExporter(ForwardConfig("there", http_destination.url, compression=compression))
    exporter.export(Batch(1, 1), [spans("a")])
    exporter.close()
    assert http_destination.bodies == [("/v1/traces", spans("a").payload)]
    assert http_destination.headers[0].get("Content-Encoding", "none") == compression


def test_http_tells_the_status_message(http_destination: Destination) -> None:
    """What a destination says of a refusal is told, as far as it is a google.rpc.Status."""
    body = Status(message="no such tenant").SerializeToString()
    http_destination.answers = [(403, {"Content-Type": "application/x-protobuf"}, body)]
    http_destination.answers *= 3  # the spans, and an empty request of each other signal
    exporter = ForwardExporter(ForwardConfig("there", http_destination.url))
    with pytest.raises(RetryableError, match="403 Forbidden: no such tenant"):
        exporter.export(Batch(1, 1), [spans("a"), spans("b")])
    exporter.close()
    assert exporter.dropped == 0


def test_what_a_destination_answers_is_told_without_secrets_and_controls(http_destination: Destination) -> None:
    """Its text is somebody else's: no escape of it reaches a terminal, no password a log, and it is cut."""
    message = f"\x1b[2JEVIL\x07\nfake line password=hunter2hunter2 Bearer abcdefgh1jklmnop {'x' * 3000}"
    body = Status(message=message).SerializeToString()
    http_destination.answers = [(400, {"Content-Type": "application/x-protobuf"}, body)]
    exporter = ForwardExporter(ForwardConfig("there", http_destination.url))
    exporter.export(Batch(1, 1), [spans("a")])
    exporter.close()
    told = exporter.last_refusal
    assert r"\x1b[2JEVIL\x07\nfake line password=****" in told
    assert told.isprintable()
    assert not any(secret in told for secret in ("hunter2", "abcdefgh1"))
    assert len(told) < 400


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_destination_that_is_down_is_retryable(scheme: str, unused_port: int) -> None:
    """Nobody listening is an error that may be tried again, and names the address."""
    exporter = ForwardExporter(ForwardConfig("there", f"{scheme}://127.0.0.1:{unused_port}", timeout_s=5))
    with pytest.raises(RetryableError, match=str(unused_port)):
        exporter.export(Batch(1, 1), [spans("a")])
    exporter.close()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_merging_stops_at_the_size_and_at_the_signal() -> None:
    """Requests of one signal in a row are merged up to the limit; a larger one goes alone; the order stays."""
    large = Record(Signal.TRACES, b"\x0a\x00" * (MAX_REQUEST_BYTES // 2), 1)
    small = spans("a")
    found = list(merged([small, small, logs("x"), small, large, small]))
    assert [(signal, len(parts)) for signal, parts in found] == [(1, 2), (3, 1), (1, 1), (1, 1), (1, 1)]
    assert found[0][1] == [small.payload] * 2
    assert list(merged([])) == []


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("localhost:14317", GrpcTransport),
        ("grpc://localhost:14317", GrpcTransport),
        ("grpcs://localhost:14317", GrpcTransport),
        ("http://localhost:4317", GrpcTransport),
        ("https://localhost:4317", GrpcTransport),
        ("http://localhost:4318", HttpTransport),
        ("https://example.org/otlp", HttpTransport),
        ("http://[::1]:14318", HttpTransport),
    ],
)
def test_the_url_says_the_transport(url: str, kind: type) -> None:
    """gRPC by scheme, bare address or port 4317; HTTP otherwise."""
    made = transport(ForwardConfig("there", url))
    assert isinstance(made, kind)
    made.close()


@pytest.mark.parametrize("url", ["ftp://host:1", "grpc://", "http://host:99999", "http://host:x"])
def test_a_wrong_url_is_a_configuration_error(url: str) -> None:
    """A URL that is no OTLP destination is named with what it should be."""
    with pytest.raises(ConfigError, match="no OTLP destination"):
        transport(ForwardConfig("there", url))

"""Requests to real servers: what is sent, what an answer means, what is tried again, and how long anything may take."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from hubscope.exporters.delivery import notices, split
from hubscope.exporters.delivery.courier import Courier, _sender
from hubscope.exporters.delivery.leaving import Leaving
from hubscope.exporters.delivery.settings import GRPC, HTTP, Destination

PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
).SerializeToString()


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    notices._told.clear()


def spans(count: int, size: int = 0) -> ExportTraceServiceRequest:
    """A request of two resources with two scopes each."""
    request = ExportTraceServiceRequest()
    groups = []
    for number in range(2):
        resource = request.resource_spans.add(schema_url=f"r{number}")
        resource.resource.attributes.add(key=f"r{number}").value.int_value = number
        for scope_number in range(2):
            scope = resource.scope_spans.add(schema_url="s")
            scope.scope.name = f"scope {number} {scope_number}"
            groups.append(scope.spans)
    for number in range(count):
        groups[number * 4 // count].add(name=f"{number} {'x' * size}", span_id=number.to_bytes(8, "big"))
    return request


def made(destination: Destination, leaving: Leaving | None = None) -> Courier:
    return Courier(destination.signal, destination, _sender(destination), leaving or Leaving())


class Scripted:
    """An HTTP server on a socket: of each connection it keeps what came, and says what the script says next."""

    def __init__(self, script: Callable[[int], bytes | None]) -> None:
        self.requests: list[tuple[bytes, bytes]] = []  # head, body
        self.connections = 0
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def destination(self, **more: Any) -> Destination:
        return Destination("traces", HTTP, f"http://127.0.0.1:{self.port}/v1/traces", **{"timeout_s": 10.0, **more})

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = file.readline()
                    if not line:
                        return
                    head += line
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                self.requests.append((head, file.read(length)))
                answer = self._script(len(self.requests))
                if answer is None:  # hang
                    self.over.wait(60)
                    return
                if not answer:  # close
                    return
                connection.sendall(answer)
                if b"\r\nconnection: close" in answer.lower():
                    return

    def close(self) -> None:
        self.over.set()
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], bytes | None]], Scripted]]:
    """`serve(script)`: a server; `script(n)` gives the whole answer to the nth request, None to hang, b"" to close."""
    servers: list[Scripted] = []

    def start(script: Callable[[int], bytes | None]) -> Scripted:
        servers.append(Scripted(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/x-protobuf", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


OK = answer("200 OK")


def test_one_connection_serves_many_requests(serve: Any) -> None:
    """Path, headers and bodies arrive as they should, over one connection; one that the server closed is replaced."""
    server = serve(lambda n: OK if n != 2 else answer("200 OK", b"", "Connection: close"))
    courier = made(server.destination(headers=(("x-token", "s=1"), ("user-agent", "mine"))))
    payloads = [spans(n).SerializeToString() for n in (1, 2, 3)]
    assert all(courier.deliver(payload, 1) for payload in payloads)
    assert [body for _, body in server.requests] == payloads
    head = server.requests[0][0].decode().lower()
    assert head.startswith("post /v1/traces http/1.1\r\n")
    for line in (
        f"host: 127.0.0.1:{server.port}",
        "x-token: s=1",
        "user-agent: mine",
        "content-type: application/x-protobuf",
    ):
        assert f"\r\n{line}\r\n" in head
    assert server.connections == 2
    assert courier.counts.accepted == 3


def test_a_connection_that_closes_under_a_request_is_opened_again(serve: Any) -> None:
    """A kept connection that ends without an answer is no failure: the request goes out on another one at once."""
    server = serve(lambda n: b"" if n == 2 else OK)
    courier = made(server.destination())
    assert courier.deliver(b"\x0a\x00", 1)
    assert courier.deliver(b"\x0a\x00", 1)
    assert (len(server.requests), server.connections) == (3, 2)


@pytest.mark.parametrize(("compression", "opened"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_compression(serve: Any, compression: str, opened: Callable[[bytes], bytes]) -> None:
    """The body is compressed and the header says how."""
    server = serve(lambda n: OK)
    payload = spans(50).SerializeToString()
    assert made(server.destination(compression=compression)).deliver(payload, 50)
    head, body = server.requests[0]
    assert f"content-encoding: {compression}\r\n".encode() in head
    assert opened(body) == payload
    assert len(body) < len(payload) / 2


@pytest.mark.parametrize(
    ("said", "accepted", "rejected"),
    [
        (answer("200 OK", PARTIAL), 3, 2),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 5, 0),
        (b"HTTP/1.1 202 Fine\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n%b\r\n%x\r\n%b\r\n0\r\nT: v\r\n\r\n", 3, 2),
        (b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + PARTIAL, 3, 2),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 5, 0),
        (answer("200 OK", b"{}"), 5, 0),
        (answer("200 OK", b"\x0a\xff\xff"), 5, 0),
    ],
)
def test_what_counts_as_accepted(serve: Any, said: bytes, accepted: int, rejected: int, caplog: Any) -> None:
    """2xx in every form of HTTP/1.1, with what a partial success refused counted and its reason told."""
    if b"%b" in said:
        said = said % (PARTIAL[:5], len(PARTIAL) - 5, PARTIAL[5:])
    server = serve(lambda n: said)
    courier = made(server.destination())
    assert courier.deliver(spans(5).SerializeToString(), 5)
    assert (courier.counts.accepted, courier.counts.rejected) == (accepted, rejected)
    assert ("too old" in caplog.text) == bool(rejected)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (answer("400 Bad Request", Status(message="no such field").SerializeToString()), "no such field"),
        (answer("401 Unauthorized"), "OTEL_EXPORTER_OTLP_HEADERS"),
        (answer("404 Not Found"), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (answer("302 Found", b"", "Location: http://elsewhere/"), "302"),
        (answer("500 Oops"), "500"),
    ],
)
def test_what_is_refused_is_not_sent_again(serve: Any, said: bytes, reason: str, caplog: Any) -> None:
    """Other answers are for good: counted, told once with the reason and the remedy, and tried once."""
    server = serve(lambda n: said)
    courier = made(server.destination())
    assert not courier.deliver(b"\x0a\x00", 4)
    assert not courier.deliver(b"\x0a\x00", 4)
    assert courier.counts.refused == 8
    assert len(server.requests) == 2
    assert len(caplog.records) == 1
    assert reason in caplog.text


@pytest.mark.parametrize("status", ["429 Slow", "502 Bad Gateway", "503 Busy", "504 Timeout"])
def test_what_may_be_tried_again_is(serve: Any, status: str) -> None:
    """The same bytes go out again when the server said it would take them."""
    server = serve(lambda n: OK if n == 2 else answer(status, b"", "Retry-After: 1"))
    courier = made(server.destination())
    began = time.monotonic()
    assert courier.deliver(b"\x0a\x00", 1)
    assert time.monotonic() - began >= 1
    assert [body for _, body in server.requests] == [b"\x0a\x00"] * 2


def test_a_server_that_stays_away_is_given_up_within_the_timeout(serve: Any, caplog: Any) -> None:
    """What is not taken by then is counted as lost and told once, with the remedy."""
    server = serve(lambda n: answer("503 Busy"))
    courier = made(server.destination(timeout_s=0.3))
    assert not courier.deliver(b"\x0a\x00", 7)
    assert courier.counts.lost == 7
    assert "hubscope collect" in caplog.text


@pytest.mark.parametrize("said", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"HTTP/1.1 200 "])
def test_an_unanswered_request_is_not_sent_a_second_time(serve: Any, said: bytes | None) -> None:
    """No answer, or half of one: the request is waited for up to its timeout, and is sent once."""
    server = serve(lambda n: said)
    courier = made(server.destination(timeout_s=0.4))
    began = time.monotonic()
    assert not courier.deliver(b"\x0a\x00", 1)
    assert 0.3 < time.monotonic() - began < 5
    assert len(server.requests) == 1


def test_a_process_that_leaves_waits_for_no_answer(serve: Any) -> None:
    """A request that hangs when leaving begins, in whatever thread, ends with the time to leave, not with its own."""
    server = serve(lambda n: None)
    leaving = Leaving()
    courier = made(server.destination(timeout_s=600), leaving)
    sending = threading.Thread(target=courier.deliver, args=(b"\x0a\x00", 1))
    sending.start()
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    leaving.begin(0.6)
    sending.join(10)
    assert not sending.is_alive()
    assert courier.counts.lost == 1


def test_an_address_that_swallows_packets_is_given_up() -> None:
    """A connection that is never made ends with the timeout."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    filling = [socket.socket() for _ in range(3)]
    for each in filling:  # the queue of connections is full then: further ones get no answer
        each.setblocking(False)
        each.connect_ex(full.getsockname())
    courier = made(Destination("traces", HTTP, f"http://127.0.0.1:{full.getsockname()[1]}/", timeout_s=0.5))
    began = time.monotonic()
    assert not courier.deliver(b"\x0a\x00", 1)
    assert time.monotonic() - began < 5
    for each in (*filling, full):
        each.close()


def test_a_request_that_is_too_large_is_split(serve: Any, caplog: Any) -> None:
    """Halves go out until each is taken, nothing twice; a single item that is too large is counted and told."""
    server = serve(lambda n: OK if len(server.requests[-1][1]) < 3000 else answer("413 Too Large"))
    whole = spans(40, 200)
    courier = made(server.destination())
    assert courier.deliver(whole.SerializeToString(), 40)
    parts = [ExportTraceServiceRequest.FromString(body) for _, body in server.requests if len(body) < 3000]
    names = [s.name for part in parts for r in part.resource_spans for c in r.scope_spans for s in c.spans]
    assert names == [s.name for r in whole.resource_spans for c in r.scope_spans for s in c.spans]
    assert courier.counts.accepted == 40
    assert not courier.deliver(spans(1, 4000).SerializeToString(), 1)
    assert courier.counts.refused == 1
    assert "one piece" in caplog.text


def test_halves_say_what_the_whole_said() -> None:
    """Of every signal: items, scopes, resources and their schema URLs stay together, and each half knows its items."""
    metrics = ExportMetricsServiceRequest()
    scope = metrics.resource_metrics.add(schema_url="r").scope_metrics.add(schema_url="s")
    for number in range(5):
        points = scope.metrics.add(name=f"m{number}").sum.data_points
        for value in range(number + 1):
            points.add(as_int=value)
    logs = ExportLogsServiceRequest()
    for number in range(3):
        logs.resource_logs.add().scope_logs.add().log_records.add(severity_text=str(number))
    for signal, whole, items in (("traces", spans(9), 9), ("metrics", metrics, 15), ("logs", logs, 3)):
        payload = whole.SerializeToString()
        found = split.halves(payload, signal)  # type: ignore[arg-type]
        assert found is not None
        (first, few), (second, more) = found
        assert few + more == items == split.count(payload, signal)  # type: ignore[arg-type]
        assert min(few, more) > 0
        # Protobuf reads requests one behind the other as one; scopes that were cut then stand twice.
        both = type(whole).FromString(first + second)
        assert _flat(both) == _flat(whole)
    assert split.halves(spans(1).SerializeToString(), "traces") is None


def _flat(request: Any) -> list[tuple[Any, ...]]:
    resources = next(iter(request.ListFields()))[1]
    return [
        (r.resource, r.schema_url, s.scope, s.schema_url, item)
        for r in resources
        for s in r.ListFields()[-1 if not r.schema_url else -2][1]
        for item in s.ListFields()[-1 if not s.schema_url else -2][1]
    ]


class GrpcServer:
    """A gRPC server for Export; `script(n, context)` gives the nth answer."""

    def __init__(self, script: Callable[[int, Any], bytes], credentials: Any = None) -> None:
        self.requests: list[tuple[str, bytes, dict[str, Any]]] = []

        class Handler(grpc.GenericRpcHandler):
            def service(_, details: grpc.HandlerCallDetails) -> Any:
                def take(body: bytes, context: Any) -> bytes:
                    self.requests.append((details.method, body, dict(context.invocation_metadata())))
                    return script(len(self.requests), context)

                return grpc.unary_unary_rpc_method_handler(take)

        self._pool = ThreadPoolExecutor(2)
        self._server = grpc.server(self._pool, handlers=(Handler(),))
        bind = "127.0.0.1:0"
        self.port = (
            self._server.add_secure_port(bind, credentials) if credentials else self._server.add_insecure_port(bind)
        )
        self._server.start()

    def destination(self, **more: Any) -> Destination:
        return Destination("logs", GRPC, f"localhost:{self.port}", **{"insecure": True, "timeout_s": 10.0, **more})

    def close(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


@pytest.fixture
def serve_grpc() -> Iterator[Callable[..., GrpcServer]]:
    servers: list[GrpcServer] = []

    def start(script: Callable[[int, Any], bytes], credentials: Any = None) -> GrpcServer:
        servers.append(GrpcServer(script, credentials))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _busy(context: Any, retry_info_alone: bool) -> None:
    info = RetryInfo(retry_delay=Duration(nanos=300_000_000))
    if retry_info_alone:
        context.set_trailing_metadata((("google.rpc.retryinfo-bin", info.SerializeToString()),))
    else:
        detail = AnyMessage()
        detail.Pack(info)
        status = Status(code=14, message="busy", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNAVAILABLE, "busy")


@pytest.mark.parametrize("retry_info_alone", [False, True])
def test_grpc(serve_grpc: Any, retry_info_alone: bool) -> None:
    """The signal's method with its metadata; UNAVAILABLE is tried again when the server said."""

    def script(number: int, context: Any) -> bytes:
        if number == 1:
            _busy(context, retry_info_alone)
        return PARTIAL

    server = serve_grpc(script)
    courier = made(server.destination(headers=(("x-token", "1"),), compression="gzip"))
    began = time.monotonic()
    assert courier.deliver(b"\x0a\x00", 5)
    assert 0.3 <= time.monotonic() - began < 0.8 + 5
    method, body, metadata = server.requests[1]
    assert method == "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    assert (body, metadata["x-token"], len(server.requests)) == (b"\x0a\x00", "1", 2)
    assert (courier.counts.accepted, courier.counts.rejected) == (3, 2)


def test_grpc_refusals_and_sizes(serve_grpc: Any, caplog: Any) -> None:
    """INVALID_ARGUMENT is for good; a message above the server's limit of 4 MiB goes out in halves."""

    def script(number: int, context: Any) -> bytes:
        if number == 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such field")
        return b""

    server = serve_grpc(script)
    courier = made(replace(server.destination(), signal="traces"))
    assert not courier.deliver(b"\x0a\x00", 1)
    assert "no such field" in caplog.text
    assert courier.deliver(spans(8, 1 << 20).SerializeToString(), 8)
    assert (courier.counts.refused, courier.counts.accepted) == (1, 8)


def test_grpc_without_an_answer(serve_grpc: Any) -> None:
    """A call that hangs ends with the time to leave; it was made once."""
    over = threading.Event()
    server = serve_grpc(lambda number, context: b"" * over.wait(30))
    leaving = Leaving()
    courier = made(server.destination(timeout_s=600), leaving)
    sending = threading.Thread(target=courier.deliver, args=(b"\x0a\x00", 1))
    sending.start()
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    leaving.begin(0.6)
    sending.join(10)
    over.set()
    assert not sending.is_alive()
    assert (courier.counts.lost, len(server.requests)) == (1, 1)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate for localhost and a client's."""
    folder, ca = tmp_path_factory.mktemp("papers"), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for role in ("server", "client"):
        issued = ca.issue_cert("localhost", common_name=role)
        issued.cert_chain_pems[0].write_to_path(folder / f"{role}.pem")
        issued.private_key_pem.write_to_path(folder / f"{role}.key")
    return folder


def test_tls_over_http(papers: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is known by the CA file and only by it, and gets our certificate; a file that is missing is named."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers / "server.pem", papers / "server.key")
    context.load_verify_locations(papers / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    plain = socket.create_server(("127.0.0.1", 0))
    seen: list[Any] = []

    def accept() -> None:
        while True:
            try:
                connection = context.wrap_socket(plain.accept()[0], server_side=True)
                with connection:
                    connection.recv(1 << 16)
                    seen.append(dict(connection.getpeercert() or {})["subject"])
                    connection.sendall(OK)
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    there = Destination("traces", HTTP, f"https://localhost:{plain.getsockname()[1]}/v1/traces", timeout_s=0.9)
    ours = replace(
        there,
        ca_file=f"{papers}/ca.pem",
        cert_file=f"{papers}/client.pem",
        key_file=f"{papers}/client.key",
        timeout_s=10,
    )
    assert made(ours).deliver(b"\x0a\x00", 1)
    assert any(("commonName", "client") in part for part in seen[0])
    assert not made(there).deliver(b"\x0a\x00", 1)
    assert not made(replace(there, ca_file="/no/such.pem")).deliver(b"\x0a\x00", 1)
    assert len(seen) == 1
    plain.close()
    notices._told.clear()
    made(replace(there, ca_file="/no/such.pem")).deliver(b"\x0a\x00", 1)
    assert "/no/such.pem" in caplog.text
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in caplog.text


def test_tls_over_grpc(papers: Path, serve_grpc: Any) -> None:
    """The same over gRPC."""
    pair = ((papers / "server.key").read_bytes(), (papers / "server.pem").read_bytes())
    server = serve_grpc(
        lambda number, context: b"", grpc.ssl_server_credentials([pair], (papers / "ca.pem").read_bytes(), True)
    )
    there = server.destination(insecure=False, timeout_s=0.9)
    ours = replace(
        there,
        ca_file=f"{papers}/ca.pem",
        cert_file=f"{papers}/client.pem",
        key_file=f"{papers}/client.key",
        timeout_s=10,
    )
    assert made(ours).deliver(b"\x0a\x00", 1)
    assert not made(there).deliver(b"\x0a\x00", 1)
    assert len(server.requests) == 1


def test_through_a_proxy(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is asked for the whole URL, with its user and password; no_proxy spares it."""
    proxy, direct = serve(lambda n: OK), serve(lambda n: OK)
    monkeypatch.setenv("http_proxy", f"http://ada:s%40@127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert made(direct.destination()).deliver(b"\x0a\x00", 1)
    head = proxy.requests[0][0].decode()
    assert head.startswith(f"POST {direct.destination().endpoint} HTTP/1.1\r\n")
    assert "proxy-authorization: Basic YWRhOnNA\r\n" in head
    monkeypatch.setenv("no_proxy", "127.0.0.0/8")
    assert made(direct.destination()).deliver(b"\x0a\x00", 1)
    assert (len(proxy.requests), len(direct.requests)) == (1, 1)


def test_a_tunnel_through_a_proxy(papers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For https the proxy is asked for a tunnel, and the server's own certificate is what is checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers / "server.pem", papers / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def proxy_and_server() -> None:
        connection, _ = listener.accept()
        asked.append(connection.recv(1 << 16))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1 << 16)
            secure.sendall(OK)

    threading.Thread(target=proxy_and_server, daemon=True).start()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "")
    there = Destination("traces", HTTP, "https://localhost:9/v1/traces", ca_file=f"{papers}/ca.pem")
    assert made(there).deliver(b"\x0a\x00", 1)
    assert asked[0].startswith(b"CONNECT localhost:9 HTTP/1.1\r\n")
    listener.close()

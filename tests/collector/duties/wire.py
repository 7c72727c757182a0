"""The server under test, and requests put on its sockets byte by byte."""

from __future__ import annotations

import functools
import http.client
import io
import itertools
import json
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # noqa: F401 - the details of a Status that is read as JSON
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.log import wal

MIB = 1024 * 1024
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
DEADLINE_S = 20.0


class Signal(NamedTuple):
    """One of the three signals: its path, its gRPC method, its messages, and the JSON key of its requests."""

    name: str
    path: str
    method: str
    request: type[Message]
    response: type[Message]
    key: str


SIGNALS = {
    "traces": Signal(
        "traces",
        "/v1/traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
        "resourceSpans",
    ),
    "metrics": Signal(
        "metrics",
        "/v1/metrics",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
        "resourceMetrics",
    ),
    "logs": Signal(
        "logs",
        "/v1/logs",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
        "resourceLogs",
    ),
}
TRACES = SIGNALS["traces"]

_marker = itertools.count(random.SystemRandom().randrange(1 << 40))


def marker() -> str:
    """A text that no other request holds."""
    return f"duty-{next(_marker):x}"


def example(signal: Signal = TRACES, name: str = "", items: int = 1) -> Message:
    """A good request with that many items, whose texts hold `name`."""
    chance = random.Random(name)
    name = name or marker()
    request: Any = signal.request()
    for _ in range(items):
        if signal.name == "traces":
            scope = (request.resource_spans or (request.resource_spans.add(),))[0].scope_spans
            (scope or (scope.add(),))[0].spans.add(
                trace_id=chance.randbytes(16), span_id=chance.randbytes(8), name=name, start_time_unix_nano=10**18
            )
        elif signal.name == "metrics":
            metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
            metric.gauge.data_points.add(time_unix_nano=10**18, as_int=1)
        else:
            record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=10**18)
            record.body.string_value = name
    return request


def span_json(**fields: Any) -> bytes:
    """An OTLP/JSON request with one span of these fields."""
    span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": marker(), **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


class Answer(NamedTuple):
    """An HTTP answer."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> Status:
        """The Status that every error's body is, in the type that its header says."""
        if self.headers["content-type"] == PROTOBUF:
            return Status.FromString(self.body)
        assert self.headers["content-type"] == JSON, self.headers
        return json_format.Parse(self.body, Status())


class _Unclosed(io.BufferedReader):
    def close(self) -> None:
        """One answer's end is not the connection's."""


class Connection:
    """A TCP connection that says exactly what it is told to."""

    def __init__(self, port: int, timeout_s: float = DEADLINE_S) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._reader = _Unclosed(socket.SocketIO(self.socket, "r"))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "POST") -> Answer:
        """The next answer, whole."""
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]  # all it asks is makefile
        response.begin()
        body = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)

    def makefile(self, *_: Any) -> Any:
        return self._reader

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        return self._reader.read() or b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def raw(
    path: str = "/v1/traces",
    body: bytes = b"",
    kind: str | None = PROTOBUF,
    *headers: str,
    method: str = "POST",
    host: str = "x",
    length: bool = True,
    version: str = "1.1",
) -> bytes:
    """The bytes of an HTTP request."""
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"Host: {host}"] if host else []
    lines += [f"Content-Type: {kind}"] if kind is not None else []
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


class Target:
    """What the rules are asked of."""

    def __init__(self, grpc_port: int, http_port: int) -> None:
        self.grpc_port, self.http_port = grpc_port, http_port

    def exchange(self, data: bytes, method: str = "POST") -> Answer:
        """One request on a connection of its own, and its answer."""
        with Connection(self.http_port) as connection:
            connection.send(data)
            return connection.answer(method)

    def post(self, body: bytes, kind: str | None = PROTOBUF, *headers: str, path: str = "/v1/traces") -> Answer:
        return self.exchange(raw(path, body, kind, *headers))

    def post_json(self, body: Any, path: str = "/v1/traces") -> Answer:
        return self.post(body if isinstance(body, bytes) else json.dumps(body).encode(), JSON, path=path)

    @functools.cached_property
    def channel(self) -> grpc.Channel:
        options = [("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options)

    def export(self, payload: bytes, signal: Signal = TRACES, **more: Any) -> bytes:
        """One gRPC Export; raises grpc.RpcError."""
        return bytes(self.channel.unary_unary(signal.method)(payload, timeout=DEADLINE_S, **more))

    def refused(self, payload: bytes, signal: Signal = TRACES, **more: Any) -> grpc.RpcError:
        """The error of a gRPC Export that must fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.export(payload, signal, **more)
        return caught.value

    def payloads(self) -> list[bytes]:
        """What the server has passed on so far."""
        raise NotImplementedError

    def kept(self, holds: bytes | str, signal: Signal = TRACES) -> Any:
        """The one request with these bytes that went on, parsed; waits for it."""
        needle = holds if isinstance(holds, bytes) else holds.encode()
        end_s = time.monotonic() + DEADLINE_S
        while not (found := [p for p in self.payloads() if needle in p]):
            assert time.monotonic() < end_s, f"{holds!r} was not kept"
            time.sleep(0.02)  # between two looks
        assert len(found) == 1
        return signal.request.FromString(found[0])

    def kept_span(self, body: bytes | str, holds: str = "") -> Any:
        """Send an OTLP/JSON request of one span; the span that went on."""
        text = body if isinstance(body, bytes) else body.encode()
        answer = self.post(text, JSON)
        assert answer.code == 200, answer
        name = holds or json.loads(text.decode("utf-8-sig"))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"]
        return self.kept(name).resource_spans[0].scope_spans[0].spans[0]


class Front(Target):
    """A front process of its own, without a worker: what it acknowledged stays in its log."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        port = Address("127.0.0.1", 0)
        self.settings = CollectorSettings(
            lake=str(folder),
            state_dir=str(folder / ".state"),
            grpc=port,
            http=port,
            telemetry=port,
            flush_interval_s=0.05,
            **changes,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hubscope.collector.front", "--settings-json", self.settings.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(folder.with_suffix(".err"), "wb"),  # noqa: SIM115 - the process has it
        )
        assert self.process.stdout is not None
        ports = json.loads(self.process.stdout.readline())
        super().__init__(ports["grpc"], ports["http"])
        self.telemetry_port = ports["telemetry"]
        self._seen: dict[str, list[bytes]] = {}

    def payloads(self) -> list[bytes]:
        for path in wal.sealed_segments(self.settings.wal_dir):
            if path.name not in self._seen:
                self._seen[path.name] = [record.payload for record in wal.read_segment(path)]
        return [payload for records in self._seen.values() for payload in records]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Other(Target):
    """Another server, which forwards to an OTLP/gRPC server of ours: HUBSCOPE_DUTIES_SINK names its address."""

    def __init__(self, ports: str) -> None:
        grpc_port, http_port, sink_port = (int(port) for port in ports.split(","))
        super().__init__(grpc_port, http_port)
        self._payloads: list[bytes] = []
        self._server = grpc.server(ThreadPoolExecutor(4))

        def take(request: bytes, _: Any) -> bytes:
            self._payloads.append(request)
            return b""

        for signal in SIGNALS.values():
            service = signal.method.split("/")[1]
            handlers = {"Export": grpc.unary_unary_rpc_method_handler(take)}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._server.add_insecure_port(f"127.0.0.1:{sink_port}")
        self._server.start()

    def payloads(self) -> list[bytes]:
        return list(self._payloads)

"""A log with destinations that follow it, and servers that behave, or do not."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.destinations import Destinations
from hubscope.collector.log.wal import Record, SegmentWriter, Signal
from hubscope.collector.segments import batch_of
from hubscope.exporters.clickhouse import ClickHouseConfig
from hubscope.exporters.forward import ForwardConfig
from hubscope.processors.pipeline import Chain

NO_PROCESSORS = Chain((), (), ())

DEADLINE_S = 100.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.01)  # between two looks at the condition
    return found


def spans(*names: str) -> Record:
    request = ExportTraceServiceRequest()
    found = request.resource_spans.add().scope_spans.add().spans
    for name in names:
        found.add(name=name, trace_id=b"t" * 16, span_id=b"s" * 8)
    return Record(Signal.TRACES, request.SerializeToString(), 1)


class Healthy:
    """An OTLP/HTTP server. `status` is what it answers; `names` are the spans that it took, in their order."""

    def __init__(self) -> None:
        self.status, self.names, self.tries = 200, list[str](), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                outer.tries += 1
                if outer.status == 200 and self.path == "/v1/traces":
                    for above in ExportTraceServiceRequest.FromString(body).resource_spans:
                        outer.names += [span.name for scope in above.scope_spans for span in scope.spans]
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:  # a sender that is killed in the middle is what is tested
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Misbehaving:
    """A TCP server that answers each connection by `answer(connection)`; `seen` counts them."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.seen = 0
        self._answer = answer
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.seen += 1
            self._held.append(connection)
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self._answer(connection)

    def close(self) -> None:
        self._socket.close()
        for connection in self._held:
            connection.close()


def says_nothing(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def says_503(connection: socket.socket) -> None:
    while connection.recv(1 << 20):
        connection.sendall(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n")


def hangs_in_the_answer(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly")
    says_nothing(connection)


def trickles(connection: socket.socket) -> None:
    """A byte every 100 ms: each single read succeeds, the answer never ends."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)  # the server's own pace


def closes(connection: socket.socket) -> None:
    connection.recv(100)
    connection.close()


def talks_nonsense(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x00\xff HELLO\r\n\r\n")
    connection.close()


MISBEHAVIOURS = (says_nothing, says_503, hangs_in_the_answer, trickles, closes, talks_nonsense)


class Lab:
    """A log, and destinations that follow it. Everything sealed counts as processed, and the lake as having it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.settings = CollectorSettings(lake=str(folder / "lake"), state_dir=str(self.state))
        self.log = SegmentWriter(self.settings.wal_dir)
        self.last = 0
        self.stop, self.draining = threading.Event(), threading.Event()
        self.destinations: Destinations | None = None

    def start(self, *forward: ForwardConfig, clickhouse: tuple[ClickHouseConfig, ...] = ()) -> Destinations:
        settings = replace(self.settings, forward=forward, clickhouse=clickhouse)
        self.stop, self.draining = threading.Event(), threading.Event()
        self.destinations = Destinations(settings, NO_PROCESSORS, "w", lambda: self.last, self.stop, self.draining)
        for delivery in self.destinations.deliveries:
            delivery.start()
        return self.destinations

    def add(self, *records: Record) -> int:
        self.log.append(records)
        number = self.log.seal()
        assert number is not None
        if self.destinations is not None and self.destinations.of_rows:
            self.destinations.keep(batch_of(number, records, NO_PROCESSORS), records, {})
        self.last = number
        return number

    def end(self) -> None:
        """Stop the threads; none may have crashed."""
        self.stop.set()
        for delivery in self.destinations.deliveries if self.destinations else []:
            delivery.join(DEADLINE_S)
            assert not delivery.is_alive()
            assert delivery.crashed is None

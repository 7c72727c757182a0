"""gRPC by hand, through h2: frames, headers and encodings that no gRPC client would send."""

from __future__ import annotations

import socket
import struct

import h2.config
import h2.connection
import h2.events
import h2.exceptions

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def message(payload: bytes, compressed: bool = False, length: int | None = None) -> bytes:
    """A length-prefixed gRPC message; `length` lies about its size."""
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


class H2:
    """One HTTP/2 connection whose streams are driven step by step."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.answers: dict[int, dict[str, str]] = {}  # stream -> headers and trailers together
        self.ended: set[int] = set()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def open(self, method: str = EXPORT, encoding: str = "", **more: str) -> int:
        """Begin a call; its stream."""
        stream = self.connection.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "x",
            "content-type": "application/grpc",
            "te": "trailers",
            **({"grpc-encoding": encoding} if encoding else {}),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        self.connection.send_headers(stream, list(headers.items()))
        self.answers[stream] = {}
        self.flush()
        return stream

    def send(self, stream: int, body: bytes, end: bool = True) -> None:
        """DATA within the other side's windows; stops where the call was ended meanwhile."""
        while body and stream not in self.ended:
            room = min(
                self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size, len(body)
            )
            if room <= 0:
                self.receive()
                continue
            self.connection.send_data(stream, body[:room])
            body = body[room:]
            self.flush()
        if end and stream not in self.ended:
            self.connection.end_stream(stream)
            self.flush()

    def receive(self) -> None:
        """Whatever comes next. Raises ConnectionError where nothing does any more."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                pairs = ((_text(name), _text(value)) for name, value in event.headers)
                self.answers[event.stream_id] |= dict(pairs)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.answers[event.stream_id].setdefault("reset", str(event.error_code))
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.DataReceived):
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                raise ConnectionError(f"GOAWAY {event.error_code}")
        self.flush()

    def answer(self, stream: int) -> dict[str, str]:
        """Headers and trailers of a call, when it has ended."""
        while stream not in self.ended:
            self.receive()
        return self.answers[stream]

    def close(self) -> None:
        self.socket.close()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def call(port: int, body: bytes, method: str = EXPORT, encoding: str = "", **more: str) -> dict[str, str]:
    """One call with this body, byte for byte; its headers and trailers."""
    client = H2(port)
    try:
        stream = client.open(method, encoding, **more)
        client.send(stream, body)
        return client.answer(stream)
    finally:
        client.close()

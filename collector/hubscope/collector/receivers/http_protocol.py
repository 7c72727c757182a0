"""What uvicorn's HTTP/1.1 protocol leaves open: bounds on headers, in bytes and time, and errors with a Status body."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hubscope.collector.receivers import statuses

HEADER_BYTES: Final = 64 * 1024  # request line and headers, and trailers; nginx has 32 KiB, uvicorn's other parser 64
HEADER_TIMEOUT_S: Final = 20.0  # from a request's first byte to the end of its headers
SILENCE_S: Final = 75.0  # a connection that never said anything; as long as one that is kept alive

_FAILURES: Final = {
    400: (3, "this is not an HTTP/1.1 request"),
    408: (4, f"the headers did not arrive within {HEADER_TIMEOUT_S:g} s"),
    431: (8, f"the request line, the headers or the trailers are larger than {HEADER_BYTES} B"),
}


class _Flow(FlowControl):
    """Reads nothing more while requests wait in the pipeline.

    uvicorn reads on with every answer, 256 KiB or 2,000 requests each: whoever sends faster than he is answered, or
    reads no answer, filled the memory.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class OtlpProtocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._in_headers = False
        self._offered = False  # the request offers an upgrade, which is ignored
        self._media_type = b""
        self._header_bytes = 0  # of headers and trailers that are complete
        self._open_bytes = 0  # received since the parser last had something whole
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(SILENCE_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and end the connection where it would have to hold too much or for too long."""
        self._unset_keepalive_if_required()
        self._open_bytes += len(data)
        received_bytes = len(data)
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._as_sent_without_offer() + data[upgrade.args[0] :] if self._offered else b""
            except httptools.HttpParserError:
                self._fail(431 if self._header_bytes > HEADER_BYTES else 400)
                return
        if self.transport.is_closing():
            return
        if max(self._open_bytes - received_bytes, self._header_bytes) > HEADER_BYTES:
            self._fail(431)
        elif self._in_headers and self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIMEOUT_S, self._too_slow)

    def _as_sent_without_offer(self) -> bytes:
        """The head of a request that offers an upgrade, as it would be without the offer, for a new parser.

        The parser takes whatever follows such a head for the other protocol: the body was lost, and answered with 200.
        Java's HttpClient makes the offer (h2c) with its first request, and a server that wants none reads on.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        kept = [(name, value) for name, value in self.headers if name not in (b"upgrade", b"http2-settings")]
        lines = [method + b" " + self.url + b" HTTP/" + version]
        for name, value in kept:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(t for t in tokens if t.lower() not in (b"upgrade", b"http2-settings"))
            lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self._offered = False
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._cancel()
        self._in_headers = True
        self._media_type = b""
        self._header_bytes = self._open_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if not self._in_headers:
            return  # a trailer: it must not be taken for a header (RFC 9110, 6.5.1)
        if name.lower() == b"content-type":
            self._media_type = value.partition(b";")[0].strip().lower()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._cancel()
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._offered:
            return
        self._in_headers = False
        self._open_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._open_bytes = 0
        super().on_body(body)

    def on_chunk_header(self) -> None:
        self._open_bytes = 0

    def on_message_complete(self) -> None:
        if self._offered:
            return
        self._open_bytes = 0
        super().on_message_complete()

    def _count(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > HEADER_BYTES:
            raise ValueError("too many headers")  # the parser stops

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_headers:
            self._fail(408)
        else:
            self.transport.close()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, code: int) -> None:
        self._cancel()
        getattr(self.config.app, "count_unreadable", int)()
        cycle: Any = self.cycle
        pending = cycle is not None and not cycle.response_complete
        if pending and (self._in_headers or not cycle.more_body):
            # This is the next message: the request before it gets its answer first, and then the connection ends.
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if not pending or not (cycle.response_started or self.pipeline):
            self.transport.write(_answer(code, self._media_type))
        if pending:
            cycle.disconnected = True  # its task reads no further, and answers nobody
            cycle.message_event.set()
        self.transport.close()


def _answer(code: int, media_type: bytes) -> bytes:
    status = statuses.of(*_FAILURES[code])
    protobuf = media_type == b"application/x-protobuf"
    body = status.SerializeToString() if protobuf else statuses.to_json(status)
    head = (
        STATUS_LINE[code],
        b"content-type: " + (media_type if protobuf else b"application/json") + b"\r\n",
        b"content-length: " + str(len(body)).encode() + b"\r\n",
        b"connection: close\r\n\r\n",
    )
    return b"".join((*head, body))

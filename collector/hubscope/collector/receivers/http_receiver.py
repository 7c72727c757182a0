"""OTLP over HTTP: an ASGI application for protobuf and JSON on one port, served by uvicorn.

Every error, also 404 and 405, carries a `google.rpc.Status` in the request's own type.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final, NamedTuple

import uvicorn
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import Security
from hubscope.collector.live import Live
from hubscope.collector.otlp import otlp_json
from hubscope.collector.otlp.large import LARGE_BYTES
from hubscope.collector.otlp.requests import KINDS, Kind, count_items
from hubscope.collector.receivers import statuses
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.grpc_receiver import is_authorized
from hubscope.collector.receivers.http_protocol import OtlpProtocol
from hubscope.collector.receivers.intake import Intake
from hubscope.collector.receivers.limits import RequestTooLargeError, gunzip
from hubscope.errors import BadInputError, ConfigError, RetryableError

TRANSPORT: Final = "http"
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
BODY_TIMEOUT_S: Final = 60.0  # a sender this slow holds a connection, and nobody else up
SEND_BUFFER_BYTES: Final = 64 * 1024  # an answer has 4 KiB at most
OFF_LOOP_BYTES: Final = 128 * 1024  # above it, decoding goes to a thread: 128 KiB of JSON takes about 3 ms

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_BY_PATH: Final = {kind.http_path: kind for kind in KINDS}


class Answer(NamedTuple):
    """An HTTP answer: its code, its body as a Status (None is success), more headers, and what a success warns of."""

    code: int
    status: Status | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    warning: str = ""


class Refused(Exception):
    """Ends a request early with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class _Arriving:
    """One body on its way in, for the memory that all of them take together."""

    __slots__ = ("size_bytes",)

    def __init__(self) -> None:
        self.size_bytes = 0


class OtlpHttp:
    """The application. `__call__` is one request."""

    def __init__(self, live: Live, intake: Intake, counters: Counters) -> None:
        self._limit_bytes = live.settings.limits.request_size_bytes
        self._live = live
        self._intake = intake
        self._arriving_bytes = 0  # of bodies that are being read or decoded
        self._large = asyncio.Semaphore(1)
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = _headers(scope)
        media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        try:
            answer = await self._handle(scope, headers, media_type, receive)
        except Refused as refused:
            answer = refused.answer
        except RetryableError as error:
            self._counters.requests[TRANSPORT, "refused"] += 1
            answer = Answer(503, statuses.unavailable(error), ((b"retry-after", statuses.retry_after_header(error)),))
        except RequestTooLargeError as error:
            self._counters.requests[TRANSPORT, "too_large"] += 1
            answer = Answer(413, statuses.bad_request(error, 8), ((b"connection", b"close"),))
        except BadInputError as error:
            self._counters.requests[TRANSPORT, "bad"] += 1
            answer = Answer(400, statuses.bad_request(error))
        if b"expect" in headers and answer.code >= 400:  # it may send the body or not, so what comes next is unclear
            answer = answer._replace(headers=(*answer.headers, (b"connection", b"close")))
        await _respond(send, answer, media_type, self._cors(headers))

    def count_unreadable(self) -> None:
        """A request that ended before it was one: bad HTTP, or headers that were too large or too slow."""
        self._counters.requests[TRANSPORT, "bad"] += 1

    async def _handle(self, scope: Scope, headers: dict[bytes, str], media_type: str, receive: Receive) -> Answer:
        if scope["http_version"] == "1.1" and (b"host" not in headers or "," in headers[b"host"]):
            raise BadInputError("an HTTP/1.1 request has one Host header", "send one (RFC 9112, 3.2)")
        if headers.get(b"transfer-encoding", "chunked").strip().lower() != "chunked":
            status = statuses.of(12, "the one Transfer-Encoding that is known here is chunked")
            return Answer(501, status, ((b"connection", b"close"),))
        kind = _BY_PATH.get(scope["path"])
        if kind is None:
            known = ", ".join(_BY_PATH)
            return Answer(404, statuses.of(5, f"there is nothing at {scope['path'][:200]}; OTLP is at {known}"))
        method = scope["method"]
        if method == "OPTIONS" and self._live.settings.security.cors_allowed_origins:
            return Answer(204)
        if method != "POST":
            allow = b"POST, OPTIONS" if self._live.settings.security.cors_allowed_origins else b"POST"
            status = statuses.of(12, f"{method[:20]} is not allowed here; use POST")
            return Answer(405, status, ((b"allow", allow),))
        tokens = self._live.settings.security.bearer_tokens
        if tokens and not is_authorized(headers.get(b"authorization", ""), tokens):
            self._counters.requests[TRANSPORT, "unauthorized"] += 1
            status = statuses.of(16, "a bearer token is needed (Authorization: Bearer …)")
            return Answer(401, status, ((b"www-authenticate", b"Bearer"),))
        if media_type not in (PROTOBUF, JSON):
            return Answer(415, statuses.of(3, f"Content-Type must be {PROTOBUF} or {JSON}, got {media_type[:100]!r}"))
        codings = [c for c in (c.strip().lower() for c in headers.get(b"content-encoding", "").split(",")) if c]
        codings = [c for c in codings if c != "identity"]
        if codings not in ([], ["gzip"], ["x-gzip"]):
            status = statuses.of(3, f"Content-Encoding must be gzip or none, got {', '.join(codings)[:100]!r}")
            return Answer(415, status, ((b"accept-encoding", b"gzip"),))
        arriving = _Arriving()
        try:
            body = await self._body(receive, arriving)
            payload, items, warning = await self._decode(kind, media_type, bool(codings), body)
        finally:
            self._arriving_bytes -= arriving.size_bytes
        if items:
            try:
                await self._intake.accept(kind.signal, payload)
            except RetryableError:
                self._counters.refused[kind.items, TRANSPORT] += items
                raise
        self._counters.requests[TRANSPORT, "accepted"] += 1
        self._counters.accepted[kind.items, TRANSPORT] += items
        return Answer(200, warning=warning)

    async def _body(self, receive: Receive, arriving: _Arriving) -> bytes:
        """The body as sent, chunked or not. One that is too large is read to its end, within bounds, so that the
        sender gets to see the answer."""
        refusal = self._intake.refusal()
        if refusal is not None:
            raise refusal
        parts: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise BadInputError("the sender hung up in the middle of the body")
                    part = message.get("body", b"")
                    size_bytes += len(part)
                    if size_bytes <= self._limit_bytes:
                        if (
                            self._arriving_bytes + len(part) + self._intake.waiting_bytes
                            > self._live.settings.limits.waiting_size_bytes
                        ):
                            raise RetryableError("too many requests are on their way already", retry_after_s=1.0)
                        arriving.size_bytes += len(part)
                        self._arriving_bytes += len(part)
                        parts.append(part)
                    elif size_bytes > 2 * self._limit_bytes:
                        raise RequestTooLargeError(self._limit_bytes)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            status = statuses.of(4, f"the body did not arrive within {BODY_TIMEOUT_S:g} s")
            raise Refused(Answer(408, status, ((b"connection", b"close"),))) from None
        if size_bytes > self._limit_bytes:
            raise RequestTooLargeError(self._limit_bytes)
        return b"".join(parts)

    async def _decode(self, kind: Kind, media_type: str, compressed: bool, body: bytes) -> tuple[bytes, int, str]:
        """The request as protobuf, how many items it holds, and what its sender should be warned of."""

        def decode(limit_bytes: int) -> tuple[bytes, int, str]:
            plain = gunzip(body, limit_bytes) if compressed else body
            payload = otlp_json.to_protobuf(plain, kind.signal) if media_type == JSON else plain
            items = count_items(kind, payload)
            return payload, items, _warning(kind, plain) if media_type == JSON and not items and len(plain) > 2 else ""

        if len(body) <= LARGE_BYTES:
            small_bytes = min(LARGE_BYTES, self._limit_bytes)
            if len(body) <= OFF_LOOP_BYTES and not compressed:
                return decode(small_bytes)
            try:
                return await asyncio.to_thread(decode, small_bytes)
            except RequestTooLargeError:
                if small_bytes == self._limit_bytes:
                    raise
        async with self._large:  # one at a time: parsed, a request of 64 MiB takes up to ten times as much
            return await asyncio.to_thread(decode, self._limit_bytes)

    def _cors(self, headers: dict[bytes, str]) -> Headers:
        """CORS headers for a named origin; for any other only that it matters, and none at all where none is named."""
        origin = headers.get(b"origin", "")
        allowed = self._live.settings.security.cors_allowed_origins
        if not allowed:
            return []
        if not origin or (origin not in allowed and "*" not in allowed):
            return [(b"vary", b"origin")]  # or a cache would give this answer to an origin that is named
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", b"content-type, content-encoding, authorization"),
            (b"access-control-max-age", b"7200"),
            (b"vary", b"origin"),
        ]


def _headers(scope: Scope) -> dict[bytes, str]:
    """The headers by lower-case name. One that came in several lines is the list of them (RFC 9110, 5.3)."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _warning(kind: Kind, text: bytes) -> str:
    """Why a JSON request that has content has no items: unknown keys must be ignored, and nobody would notice."""
    unknown = otlp_json.unknown_keys(text, kind.signal)
    if not unknown:
        return ""
    named = ", ".join(repr(key[:40]) for key in unknown[:5])
    (known,) = (field.json_name for field in kind.message.DESCRIPTOR.fields)
    return statuses.one_line(f"nothing was taken: {kind.http_path} reads {known!r}, and ignored the key {named}")


async def _respond(send: Send, answer: Answer, media_type: str, more: Headers) -> None:
    if media_type == PROTOBUF:
        body = b"" if answer.status is None else answer.status.SerializeToString()
        content_type = PROTOBUF
    else:
        body = statuses.to_json(answer.status) if answer.status is not None else _success_json(answer.warning)
        content_type = JSON
    headers: Headers = [*answer.headers, *more]
    if answer.code == 204:
        body = b""
    else:
        headers += [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": answer.code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _success_json(warning: str) -> bytes:
    return json.dumps({"partialSuccess": {"errorMessage": warning}}).encode() if warning else b"{}"


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the process it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def renew_certificates(self, security: Security) -> None:
        """Serve new connections with these certificates. Those that are open keep theirs. Raises OSError."""
        listening = self.config.ssl
        if listening is None:
            return
        fresh = _tls_context(security)
        # OpenSSL asks it at every handshake, whether or not the client names a server
        listening.sni_callback = lambda connection, name, context: setattr(connection, "context", fresh)


def listen(address: Address, what: str, flag: str) -> socket.socket:
    """A bound socket. Raises ConfigError that names the flag for an address that cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # By its protocol's number asyncio knows TCP, and switches Nagle's algorithm off: an answer's headers and body are
    # two writes, and the second would wait 40 ms for the acknowledgement of the first.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Linux lets it grow to 4 MB: 13,000 answers to a sender that reads none, and a request worked on for each of them.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        found.bind((address.host, address.port))
    except OSError as error:
        found.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"{what} cannot listen on {address}: {reason}", f"{flag} HOST:PORT changes it") from error
    return found


def server(application: Any, security: Security | None = None) -> Server:
    """An HTTP server for an ASGI application; with TLS where the settings have it."""
    config = uvicorn.Config(
        application,
        http=OtlpProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # exporters send every 5 s to 60 s and should not have to reconnect
        timeout_graceful_shutdown=2,
        backlog=2048,
    )
    config.load()
    if security is not None and security.cert_file:
        config.ssl = _tls_context(security)
    return Server(config)


def _tls_context(security: Security) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 at least, and OpenSSL's own choice of ciphers
    context.load_cert_chain(security.cert_file, security.key_file)
    context.set_alpn_protocols(["http/1.1"])
    if security.client_ca_file:
        context.load_verify_locations(security.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

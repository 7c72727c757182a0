"""Passing OTLP on to another endpoint, byte for byte: Jaeger, another collector, any backend.

Requests are not decoded. Several of one signal go out as one: concatenating the bytes of protobuf messages whose
fields are all repeated, as an Export…ServiceRequest's are, is what merging them means.

A destination that refuses whatever it is asked (no token or a wrong one, another path, another protocol) is waited for
as one that is down: the data would be taken once that is mended. Jaeger, which takes spans and no metrics, is none of
these: what tells them apart is whether it takes another signal, for which an empty request is sent.

Delivery is at least once: a crash in the middle of a segment sends a part of it again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol
from urllib.parse import urlsplit

from hubscope.errors import ConfigError, PermanentError, RetryableError
from hubscope.exporters.answers import shown
from hubscope.exporters.base import Bound, RefusedDataError, RefusedSignalError
from hubscope.exporters.tls import Tls

if TYPE_CHECKING:  # for the reason that base.py gives
    from hubscope.exporters.base import RecordLike
    from hubscope.processors.batch import Batch

# gRPC servers take 4 MiB unless told otherwise (Jaeger and the stock Collector keep that), so merging stops below it.
MAX_REQUEST_BYTES: Final = 3 << 20
# How long a signal that was taken shows that the destination takes it: one that refuses metrics gets many of them, and
# an empty request beside each would double what is sent in vain.
TAKEN_FOR_S: Final = 60.0
_SIGNALS: Final = (1, 2, 3)


@dataclass(frozen=True)
class ForwardConfig:
    """One destination. http(s)://host:4317 and grpc(s)://host:port mean gRPC, any other http(s) URL OTLP/HTTP."""

    name: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()  # they may be secrets: no message and no metric holds them
    timeout_s: float = 10.0  # from the request to the end of its answer
    sampled: bool = False  # only the spans that sampling keeps, when it decides; else every span as it comes
    enriched: bool = False  # with the resource attributes that the collector adds; else resources as they were sent
    compression: str = "gzip"  # or none; over HTTP also zstd
    tls: Tls = field(default_factory=Tls)
    bound: Bound = field(default_factory=Bound)


class Transport(Protocol):
    """Sends one request. `send` returns the answer's bytes, or raises RetryableError or PermanentError."""

    def send(self, signal: int, body: bytes) -> bytes: ...
    def close(self) -> None: ...


class ForwardExporter:
    """Sends a segment's requests to one destination. Not thread-safe: one thread calls it.

    `sent` and `dropped` count requests as they were received: a merged one counts as what it was merged of.
    """

    takes: Literal["records", "rows"] = "records"

    def __init__(self, config: ForwardConfig) -> None:
        self.name = config.name
        self.sent = 0
        self.dropped = 0
        self.rejected_items = 0  # spans, points and log records of accepted requests that the destination refused
        self.last_refusal = ""  # why requests were dropped, for the collector's telemetry
        self._transport = transport(config)
        self._taken_s: dict[int, float] = {}  # signal -> when the destination last took it, by the monotonic clock
        self._segment = 0
        self._done = 0  # requests of that segment which need not be sent again

    def export(self, batch: Batch, records: Sequence[RecordLike]) -> None:
        """Send all the records. What the destination refuses for good is counted as dropped and passed.

        Raises RetryableError where the destination is not to be had now; the next call with the same segment goes on
        where this one stopped. The batch's rows are not looked at: what was derived stands among the records.
        """
        if batch.segment != self._segment:
            self._segment, self._done = batch.segment, 0
        position = 0
        for signal, parts in merged(records):
            position += len(parts)
            if position <= self._done:
                continue
            self._send(signal, parts[len(parts) - (position - self._done) :])

    def sent_of(self, segment: int) -> int:
        """How many requests of a segment are done with, where it is the one that `export` was last called with."""
        return self._done if segment == self._segment else 0

    def close(self) -> None:
        self._transport.close()

    def _send(self, signal: int, parts: Sequence[bytes]) -> None:
        try:
            answer = self._transport.send(signal, b"".join(parts))
        except RefusedDataError as error:
            if len(parts) > 1:  # one of them may be guilty: each gets its own answer
                for part in parts:
                    self._send(signal, [part])
                return
            self._drop(1, error)
        except RefusedSignalError as error:
            if not self._is_one_signal(signal):
                remedy = "mend its url, headers or tls in the configuration, or the destination; until then all waits"
                raise RetryableError(error.message, remedy, 0.0) from error
            self._drop(len(parts), error)
        else:
            self.sent += len(parts)
            self._taken_s[signal] = time.monotonic()
            rejected, message = _partial_success(signal, answer)
            if rejected:
                self.rejected_items += rejected
                self.last_refusal = f"{rejected} items refused: {shown(message)}"
        self._done += len(parts)

    def _is_one_signal(self, signal: int) -> bool:
        """Whether a signal that was refused is one that this destination never takes, while it takes another one.

        Raises RetryableError where that cannot be known now.
        """
        if signal in self._taken_s:
            return False  # it took it before: something changed, and may change back
        return any(other != signal and self._takes(other) for other in _SIGNALS)

    def _takes(self, signal: int) -> bool:
        if time.monotonic() - self._taken_s.get(signal, -TAKEN_FOR_S) < TAKEN_FOR_S:
            return True
        try:
            self._transport.send(signal, b"")  # which every OTLP server takes, and nothing of it is stored
        except RefusedDataError:
            pass  # it looked at it
        except PermanentError:
            return False
        self._taken_s[signal] = time.monotonic()
        return True

    def _drop(self, count: int, error: PermanentError) -> None:
        self.dropped += count
        self.last_refusal = error.message


def merged(records: Sequence[RecordLike]) -> Iterator[tuple[int, list[bytes]]]:
    """(signal, payloads to send as one) in the records' order, merged while the signal stays and the size allows."""
    parts: list[bytes] = []
    size_bytes = signal = 0
    for record in records:
        if parts and (record.signal != signal or size_bytes + len(record.payload) > MAX_REQUEST_BYTES):
            yield signal, parts
            parts, size_bytes = [], 0
        signal = int(record.signal)
        parts.append(record.payload)
        size_bytes += len(record.payload)
    if parts:
        yield signal, parts


def is_grpc(url: str) -> bool:
    """Whether the URL asks for gRPC."""
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    return parts.scheme.startswith("grpc") or (parts.port == 4317 and not parts.path.strip("/"))


def is_encrypted(url: str) -> bool:
    """Whether the URL asks for TLS."""
    return urlsplit(url).scheme in ("https", "grpcs")


def transport(config: ForwardConfig) -> Transport:
    """The transport that the URL asks for. Raises ConfigError for a URL that says neither."""
    url = config.url if "://" in config.url else f"grpc://{config.url}"
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname or port == -1:
        raise ConfigError(
            f"{config.name}: {config.url!r} is no OTLP destination",
            "give grpc://HOST:4317, http://HOST:4317 (gRPC) or http://HOST:4318 (HTTP)",
        )
    tls = config.tls if is_encrypted(url) else None
    if is_grpc(url):
        from hubscope.exporters.forward_grpc import GrpcTransport

        return GrpcTransport(parts.hostname, port or 4317, tls, config.headers, config.timeout_s, config.compression)
    from hubscope.exporters.forward_http import HttpTransport

    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{host}:{port or (443 if tls else 80)}"
    return HttpTransport(address, tls, parts.path.rstrip("/"), config.headers, config.timeout_s, config.compression)


def _partial_success(signal: int, answer: bytes) -> tuple[int, str]:
    """(refused items, message) of an Export…ServiceResponse; all three signals share its numbers on the wire."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return 0, ""
    return partial.rejected_spans, partial.error_message

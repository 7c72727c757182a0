"""OTLP/gRPC as a client: raw request bytes to the three Export methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # ships no types

from hubscope.exporters.answers import shown
from hubscope.exporters.base import RefusedDataError, RefusedSignalError, retryable
from hubscope.exporters.retry_after import of_grpc
from hubscope.exporters.tls import Tls, shown_certificate

_METHODS: Final = {
    1: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    2: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    3: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# OTLP 1.11, "Failures": these may be tried again; RESOURCE_EXHAUSTED only where the server says when.
_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# What every other request would get too: sending the parts of this one alone cannot help.
_WHOLE: Final = frozenset(
    {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
)
COMPRESSION: Final = {"gzip": grpc.Compression.Gzip, "none": grpc.Compression.NoCompression}  # gRPC has no zstd
# Its own back-off between connection attempts grows to 2 minutes; a destination that is back should be found sooner.
_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class GrpcTransport:
    """One channel to one destination. `tls` None is plain text."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: Tls | None,
        headers: tuple[tuple[str, str], ...],
        timeout_s: float,
        compression: str,
    ) -> None:
        self._host, self._port = host, port
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._tls = tls
        self._timeout_s = timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in headers)
        self._compression = COMPRESSION[compression]
        self._channel: Any = None
        self._calls: dict[int, Any] = {}

    def send(self, signal: int, body: bytes) -> bytes:
        if self._channel is None:
            self._channel = self._connected()
            self._calls = {number: self._channel.unary_unary(method) for number, method in _METHODS.items()}
        try:
            answer: bytes = self._calls[signal](
                body, timeout=self._timeout_s, metadata=self._metadata, compression=self._compression
            )
            return answer
        except grpc.RpcError as error:
            code, details = error.code(), shown(error.details() or "")
            message = f"{self._address}: {code.name}: {details}"
            delay_s = of_grpc(error.trailing_metadata() or ())
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                self.close()  # one into a black hole stays open for a quarter of an hour; the next try gets its own
            if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay_s is not None):
                raise retryable(message, delay_s or 0.0) from error
            if code in _WHOLE:
                raise RefusedSignalError(message, "the destination takes no request of this signal from us") from error
            raise RefusedDataError(message, "the destination does not take this request") from error

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> Any:
        if self._tls is None:
            return grpc.insecure_channel(self._address, options=_OPTIONS)
        tls = self._tls
        options: tuple[tuple[str, int | str], ...] = _OPTIONS
        try:
            root = Path(tls.ca_file).read_bytes() if tls.ca_file else None
            key = Path(tls.key_file).read_bytes() if tls.key_file else None
            certificate = Path(tls.cert_file).read_bytes() if tls.cert_file else None
        except OSError as error:  # it was there when the configuration was checked
            raise retryable(f"{self._address}: {error}") from error
        if tls.insecure_skip_verify:
            shown = shown_certificate(self._host, self._port, self._timeout_s)
            root, options = shown.pem, (*_OPTIONS, ("grpc.ssl_target_name_override", shown.name))
        return grpc.secure_channel(self._address, grpc.ssl_channel_credentials(root, key, certificate), options=options)

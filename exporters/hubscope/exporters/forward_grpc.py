"""OTLP/gRPC as a client: raw request bytes to the three Export methods."""

from __future__ import annotations

from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # ships no types
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # ships no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

from hubscope.errors import PermanentError
from hubscope.exporters.base import retryable

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
# Its own back-off between connection attempts grows to 2 minutes; a destination that is back should be found sooner.
_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class GrpcTransport:
    """One channel to one destination."""

    def __init__(self, address: str, secure: bool, headers: tuple[tuple[str, str], ...], timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in headers)
        if secure:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(), options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._calls: dict[int, Any] = {signal: self._channel.unary_unary(m) for signal, m in _METHODS.items()}

    def send(self, signal: int, body: bytes) -> bytes:
        try:
            answer: bytes = self._calls[signal](
                body, timeout=self._timeout_s, metadata=self._metadata, compression=grpc.Compression.Gzip
            )
            return answer
        except grpc.RpcError as error:
            code, details = error.code(), (error.details() or "")[:300]
            message = f"{self._address}: {code.name}: {details}"
            delay_s = _retry_delay_s(error)
            if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay_s is not None):
                raise retryable(message, delay_s if delay_s is not None else 1.0) from error
            raise PermanentError(message, "the destination does not take this request") from error

    def close(self) -> None:
        self._channel.close()


def _retry_delay_s(error: Any) -> float | None:
    """The RetryInfo of a failed call, if the server sent one."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
    return None

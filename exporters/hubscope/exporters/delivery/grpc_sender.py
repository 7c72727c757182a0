"""OTLP/gRPC: raw request bytes to the Export method of one signal. grpcio is imported with the first request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from hubscope.exporters.delivery import USER_AGENT
from hubscope.exporters.delivery.leaving import Wait
from hubscope.exporters.delivery.outcome import Came, Outcome, accepted, retry_delay_s, retry_info_s, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubscope.exporters.delivery.settings import Destination

_METHODS: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# OTLP 1.11, "Failures", as the stock exporter takes them: RESOURCE_EXHAUSTED also without a RetryInfo.
RETRYABLE: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_RETRYABLE_VARIABLE: Final = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"  # the stock exporter's
_OPTIONS: Final = (
    ("grpc.primary_user_agent", USER_AGENT),
    # Its own back-off between connection attempts grows to 2 minutes; a collector that is back should be found sooner.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
)

_inherited: list[Any] = []  # of the parent; kept: closing one in a child takes locks that a lost thread may hold


class GrpcSender:
    """One channel to one target. Not thread-safe: one call at a time."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._channel: Any = None
        self._call: Any = None
        said = os.environ.get(_RETRYABLE_VARIABLE, "")
        self._retryable = frozenset(code.strip().upper() for code in said.split(",") if code.strip()) or RETRYABLE

    def send(self, payload: bytes, wait: Wait) -> Outcome:
        """Send one request and wait for its answer. Raises nothing."""
        import grpc  # type: ignore[import-untyped]  # ships no types

        try:
            if self._channel is None:
                self._connect(grpc)
            call = self._call.future(
                payload,
                timeout=max(wait.left_s(), 0.0),
                metadata=self._destination.headers,
                compression=self._coding(grpc),
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            self.close()
            return Outcome(Came.LATER, text(str(error).encode()) or type(error).__name__)
        try:
            while True:
                try:
                    answer: bytes = call.result(timeout=wait.slice_s())
                    return accepted(answer)
                except grpc.FutureTimeoutError:
                    continue
        except (TimeoutError, grpc.FutureCancelledError):
            call.cancel()
            self.close()  # one into a black hole stays open for a quarter of an hour; the next try gets its own
            return Outcome(Came.LATER, "no answer in time")
        except grpc.RpcError as error:
            return self._failed(error)

    def close(self) -> None:
        """Close the channel; the next request opens another one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._call = None

    def forget(self) -> None:
        """In a forked child: the parent's channel is not touched any more."""
        if self._channel is not None:
            _inherited.append((self._channel, self._call))
            self._channel = self._call = None

    def _failed(self, error: Any) -> Outcome:
        code, details = error.code().name, error.details() or ""
        reason = f"{code}: {text(details.encode())}"
        if code == "DEADLINE_EXCEEDED":
            self.close()
        if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
            return Outcome(Came.TOO_LARGE, reason)
        if code in self._retryable:
            return Outcome(Came.LATER, reason, _delay_s(error.trailing_metadata() or ()))
        return Outcome(Came.REFUSED, reason)

    def _coding(self, grpc: Any) -> Any:
        return grpc.Compression.Gzip if self._destination.compression == "gzip" else grpc.Compression.NoCompression

    def _connect(self, grpc: Any) -> None:
        target = self._destination.endpoint
        if self._destination.insecure:
            self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, self._credentials(grpc), options=_OPTIONS)
        self._call = self._channel.unary_unary(_METHODS[self._destination.signal])

    def _credentials(self, grpc: Any) -> Any:
        destination = self._destination
        if destination.provider:
            from hubscope.exporters.delivery.providers import provided

            return provided(destination.provider, grpc.ChannelCredentials, "grpc.ChannelCredentials")
        return grpc.ssl_channel_credentials(
            _read(destination.ca_file, "CERTIFICATE"),
            _read(destination.key_file, "CLIENT_KEY"),
            _read(destination.cert_file, "CLIENT_CERTIFICATE"),
        )


def _read(path: str, what: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise OSError(f"{error}; OTEL_EXPORTER_OTLP_{what} names it") from error


def _delay_s(metadata: Iterable[tuple[str, str | bytes]]) -> float:
    """Seconds from a RetryInfo: among the status's details, or alone, as some servers send it."""
    for key, value in metadata:
        if isinstance(value, bytes):
            if key == "google.rpc.retryinfo-bin":
                return retry_info_s(value) or 0.0
            if key == "grpc-status-details-bin":
                return retry_delay_s(value) or 0.0
    return 0.0

"""OTLP/HTTP as a client: binary protobuf, gzip, one kept connection. Redirects are not followed."""

from __future__ import annotations

import gzip
import http.client
import ssl
from typing import Final

from hubscope.errors import PermanentError
from hubscope.exporters.base import retryable

_PATHS: Final = {1: "/v1/traces", 2: "/v1/metrics", 3: "/v1/logs"}
_RETRYABLE: Final = frozenset({429, 502, 503, 504})  # OTLP 1.11, "Retryable Response Codes"
_MAX_ANSWER_BYTES: Final = 1 << 20
_HEADERS: Final = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "User-Agent": "hubscope"}


class HttpTransport:
    """One connection to one destination; `path` stands before `/v1/…`."""

    def __init__(
        self, address: str, secure: bool, path: str, headers: tuple[tuple[str, str], ...], timeout_s: float
    ) -> None:
        self._address = address
        self._path = path
        self._headers = {**_HEADERS, **dict(headers)}
        self._connection: http.client.HTTPConnection
        if secure:
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(address, timeout=timeout_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(address, timeout=timeout_s)

    def send(self, signal: int, body: bytes) -> bytes:
        path = self._path if self._path.endswith(_PATHS[signal]) else self._path + _PATHS[signal]
        try:
            self._connection.request("POST", path, _compressed(body), self._headers)
            response = self._connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES)
            if not response.isclosed():
                self._connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens another
            raise retryable(f"{self._address}: {error or type(error).__name__}") from error
        if 200 <= response.status < 300:
            return answer
        message = f"{self._address}{path}: {response.status} {response.reason}"
        if response.status in _RETRYABLE:
            raise retryable(message, _seconds(response.headers.get("Retry-After")))
        raise PermanentError(message, "the destination does not take this request")

    def close(self) -> None:
        self._connection.close()


def _compressed(body: bytes) -> bytes:
    """Level 1: telemetry shrinks to a tenth at any level, and this one costs a fifth of the default's time."""
    return gzip.compress(body, 1, mtime=0)


def _seconds(retry_after: str | None) -> float:
    """Retry-After in seconds. A date, or nothing: 1 s; at most five minutes, whatever a server asks for."""
    return min(float(retry_after), 300.0) if retry_after and retry_after.strip().isdigit() else 1.0

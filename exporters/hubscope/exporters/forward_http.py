"""OTLP/HTTP as a client: binary protobuf over one kept connection. Redirects are not followed."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

from hubscope.exporters.answers import shown
from hubscope.exporters.base import RefusedDataError, RefusedSignalError, retryable
from hubscope.exporters.deadline import deadline
from hubscope.exporters.retry_after import of_http
from hubscope.exporters.tls import Tls, ssl_context

_PATHS: Final = {1: "/v1/traces", 2: "/v1/metrics", 3: "/v1/logs"}
_RETRYABLE: Final = frozenset({429, 502, 503, 504})  # OTLP 1.11, "Retryable Response Codes"
# What every other request would get too: sending the parts of this one alone cannot help.
_WHOLE: Final = frozenset({401, 403, 404, 405, 407, 415})
_MAX_ANSWER_BYTES: Final = 1 << 20
_HEADERS: Final = {"Content-Type": "application/x-protobuf", "User-Agent": "hubscope"}


class HttpTransport:
    """One connection to one destination; `path` stands before `/v1/…`. `tls` None is plain text."""

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        path: str,
        headers: tuple[tuple[str, str], ...],
        timeout_s: float,
        compression: str,
    ) -> None:
        self._address = address
        self._path = path
        self._timeout_s = timeout_s
        self._compressed = COMPRESSION[compression]
        coding = {} if compression == "none" else {"Content-Encoding": compression}
        self._headers = {**_HEADERS, **coding, **dict(headers)}
        self._connection: http.client.HTTPConnection
        if tls is not None:
            self._connection = http.client.HTTPSConnection(address, timeout=timeout_s, context=ssl_context(tls))
        else:
            self._connection = http.client.HTTPConnection(address, timeout=timeout_s)

    def send(self, signal: int, body: bytes) -> bytes:
        path = self._path if self._path.endswith(_PATHS[signal]) else self._path + _PATHS[signal]
        kept = self._connection.sock is not None
        try:
            if not kept:
                self._connection.connect()
            sockets = [self._connection.sock]
            with deadline(self._timeout_s, lambda: sockets):
                self._connection.request("POST", path, self._compressed(body), self._headers)
                response = self._connection.getresponse()
                answer = response.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # ValueError: a chunk's size that is no number. The next request opens another connection.
            self._connection.close()
            raise retryable(f"{self._address}: {_text(error)}") from error
        if not response.isclosed():
            self._connection.close()  # it has more to say than anybody would read
        if 200 <= response.status < 300:
            return answer
        message = f"{self._address}{path}: {response.status} {shown(response.reason + _reason(response, answer))}"
        if response.status in _RETRYABLE:
            raise retryable(message, of_http(response.headers.get("Retry-After")))
        if response.status in _WHOLE or 300 <= response.status < 400:
            raise RefusedSignalError(message, "the destination takes no request of this signal from us")
        raise RefusedDataError(message, "the destination does not take this request")

    def close(self) -> None:
        self._connection.close()


def _zstd(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=1).compress(body)


COMPRESSION: Final[dict[str, Callable[[bytes], bytes]]] = {
    # Level 1: telemetry shrinks to a tenth at any level, and this one costs a fifth of the default's time.
    "gzip": lambda body: gzip.compress(body, 1, mtime=0),
    "zstd": _zstd,
    "none": lambda body: body,
}


def _text(error: Exception) -> str:
    return shown(str(error)) or type(error).__name__


def _reason(response: http.client.HTTPResponse, answer: bytes) -> str:
    """The google.rpc.Status's message, where the answer is one; never more of what a server may echo."""
    if not (response.headers.get("Content-Type") or "").startswith("application/x-protobuf"):
        return ""
    try:
        message = str(Status.FromString(answer).message)
    except DecodeError:
        return ""
    return f": {message}" if message else ""

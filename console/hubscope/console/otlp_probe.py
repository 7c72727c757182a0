"""Whether what listens on a port is an OTLP receiver: asked with an empty export, which stores nothing anywhere.

A port that accepts a connection proves nothing: `python -m http.server` does, and what is sent to it is lost.
"""

from __future__ import annotations

import http.client
from contextlib import closing
from typing import Final

from hubscope.collector.configuration.addresses import Address

DEADLINE_S: Final = 1.0  # an answer over loopback takes 2 ms; a second is a machine under load
_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# A receiver that wants a token, is too busy or has a full disk is one all the same.
_RECEIVER_STATUSES: Final = (400, 401, 403, 413, 415, 429, 500, 502, 503, 504)


def speaks_otlp(address: Address, protocol: str) -> bool:
    """Whether an OTLP receiver of that protocol (`grpc` or `http/protobuf`) answers at the address."""
    return _grpc(address) if protocol == "grpc" else _http(address)


def _http(address: Address) -> bool:
    with closing(http.client.HTTPConnection(address.host, address.port, timeout=DEADLINE_S)) as connection:
        try:
            connection.request("POST", "/v1/traces", b"", {"content-type": "application/x-protobuf"})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        # A site that answers everything with its front page says 200 as well, in HTML.
        is_page = (answer.getheader("content-type") or "").startswith("text/html")
        return not is_page and (answer.status == 200 or answer.status in _RECEIVER_STATUSES)


def _grpc(address: Address) -> bool:
    # 170 ms, needed only where something listens that is not this lake's collector
    import grpc  # type: ignore[import-untyped]  # ships no types

    with grpc.insecure_channel(str(address), (("grpc.enable_http_proxy", 0),)) as channel:
        try:
            grpc.channel_ready_future(channel).result(DEADLINE_S)
        except grpc.FutureTimeoutError:
            return False  # no HTTP/2 there
        try:
            channel.unary_unary(_EXPORT)(b"", timeout=DEADLINE_S)
        except grpc.RpcError as error:
            # HTTP/2 without gRPC is UNKNOWN, another gRPC service UNIMPLEMENTED; all else is a receiver's refusal.
            return error.code() not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN)
    return True

"""When a destination wants to be asked again: Retry-After of HTTP and RetryInfo of gRPC, each in both its forms."""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # ships no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types


def of_http(header: str | None, now_s: float | None = None) -> float:
    """Seconds from a Retry-After header: a number or a date (RFC 9110, 10.2.3). 0 for none, or for neither of them."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, when_s - (time.time() if now_s is None else now_s))


def of_grpc(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Seconds from a RetryInfo: among the status's details, or alone, as some servers send it. None for none."""
    found: float | None = None
    for key, value in trailing_metadata:
        if not isinstance(value, bytes):
            continue
        try:
            if key == "google.rpc.retryinfo-bin":
                return _seconds(RetryInfo.FromString(value))
            if key == "grpc-status-details-bin":
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        found = _seconds(info)
        except DecodeError:
            continue  # it did answer; only when to come again cannot be read
    return found


def _seconds(info: RetryInfo) -> float:
    return float(info.retry_delay.seconds) + float(info.retry_delay.nanos) / 1e9

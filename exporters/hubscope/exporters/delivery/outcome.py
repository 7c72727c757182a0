"""What came of a request, and the few bytes of protobuf in which servers say it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from hubscope.exporters.encoding.wire import varint_at

MAX_REASON: Final = 300  # characters of what a server says: it may echo what it was sent


class Came(Enum):
    """ACCEPTED is for good; LATER may succeed if sent again; REFUSED cannot; TOO_LARGE may in smaller parts."""

    ACCEPTED = 0
    LATER = 1
    REFUSED = 2
    TOO_LARGE = 3


class Outcome(NamedTuple):
    """`reason` is for people. `delay_s` is what the server asked for, if it did. `rejected` items of an accepted
    request were refused for good."""

    came: Came
    reason: str = ""
    delay_s: float = 0.0
    rejected: int = 0


def accepted(answer: bytes) -> Outcome:
    """From the body of an Export…ServiceResponse; the three have partial_success = 1 {rejected = 1, message = 2}."""
    rejected, message = 0, ""
    try:
        for number, value in fields(answer):
            if number == 1 and isinstance(value, bytes):
                for inner, content in fields(value):
                    if inner == 1 and isinstance(content, int):
                        rejected = content
                    elif inner == 2 and isinstance(content, bytes):
                        message = text(content)
    except ValueError:
        pass  # it was accepted all the same; a JSON answer comes here too
    return Outcome(Came.ACCEPTED, message, rejected=rejected if rejected < 1 << 63 else 0)


def status_message(body: bytes) -> str:
    """The message of a google.rpc.Status; '' for what is none."""
    try:
        return next((text(value) for number, value in fields(body) if number == 2 and isinstance(value, bytes)), "")
    except ValueError:
        return ""


def retry_delay_s(status: bytes) -> float | None:
    """Seconds from the RetryInfo among the details (= 3, each an Any) of a google.rpc.Status; None for none."""
    try:
        for number, detail in fields(status):
            if number == 3 and isinstance(detail, bytes):
                parts = dict(fields(detail))
                if isinstance(parts.get(1), bytes) and bytes(parts[1]).endswith(b"/google.rpc.RetryInfo"):
                    return retry_info_s(bytes(parts.get(2) or b""))
    except (ValueError, TypeError):
        pass
    return None


def retry_info_s(info: bytes) -> float | None:
    """Seconds of a google.rpc.RetryInfo: retry_delay = 1 {seconds = 1, nanos = 2}. None for what is none."""
    try:
        for number, delay in fields(info):
            if number == 1 and isinstance(delay, bytes):
                parts = dict(fields(delay))
                return float(parts.get(1) or 0) + float(parts.get(2) or 0) / 1e9
    except (ValueError, TypeError):
        return None
    return 0.0


def text(content: bytes) -> str:
    """For a log line: what can be printed of it, shortened."""
    return "".join(c if c.isprintable() else " " for c in content.decode("utf-8", "replace")[:MAX_REASON])


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message by number, in order: integers, or the bytes of the others.

    Raises ValueError for what is no message.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = varint_at(message, position)
        kind = key & 7
        if kind == 0:
            value, position = varint_at(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = varint_at(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no protobuf message: wire type {kind}")
        if position + size > end:
            raise ValueError("no protobuf message: it is cut short")
        content = message[position : position + size]
        position += size
        yield key >> 3, content if kind == 2 else int(struct.unpack("<Q" if kind == 1 else "<I", content)[0])

"""The size limit of a request, counted after decompression and enforced while decompressing.

A kilobyte of gzip can stand for a megabyte, so a limit on what arrives is none, and a limit checked afterwards comes
too late: one bomb took a Python server 2 GiB.
"""

from __future__ import annotations

import zlib
from typing import Final

from hubscope.errors import BadInputError

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_STEP_BYTES: Final = 1024 * 1024
# What follows a member is copied at its end, so a body of a million tiny members would be copied a million times.
_INPUT_BYTES: Final = 64 * 1024
MAX_MEMBERS: Final = 10_000  # bgzip, which makes the most, makes 1,000 of 64 MiB


class RequestTooLargeError(BadInputError):
    """A request above the limit. Sending it again cannot help; sending it in parts can."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the request is larger than {limit_bytes} B after decompression",
            "send smaller batches, or raise receivers.max_request_size",
        )


def gunzip(data: bytes, limit_bytes: int) -> bytes:
    """The decompressed content of one or more gzip members, using at most `limit_bytes` and a step of memory.

    Raises RequestTooLargeError beyond the limit and BadInputError for what is no gzip, or not all of it.
    """
    parts: list[bytes] = []
    size_bytes = position = members = 0
    member = None
    rest = b""
    while rest or position < len(data) or member is not None:
        if not rest:
            rest = data[position : position + _INPUT_BYTES]
            position += len(rest)
        if member is None:
            rest = rest.lstrip(b"\0") if members else rest  # padding after a member is allowed
            if not rest:
                continue
            members += 1
            if members > MAX_MEMBERS:
                raise BadInputError(f"the body has more than {MAX_MEMBERS} gzip members", "compress it as a whole")
            member = zlib.decompressobj(_GZIP_WINDOW)
        try:
            part = member.decompress(rest, min(_STEP_BYTES, limit_bytes + 1 - size_bytes))
        except zlib.error as error:
            raise BadInputError(f"the body is not gzip: {error}", "send it as its Content-Encoding says") from None
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise RequestTooLargeError(limit_bytes)
        parts.append(part)
        if member.eof:
            rest, member = member.unused_data, None
        elif part or rest or position < len(data):
            rest = member.unconsumed_tail
        else:
            raise BadInputError("the gzip body ends in the middle", "send all of it")
    return b"".join(parts)

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
    size_bytes = 0
    while data:
        member = zlib.decompressobj(_GZIP_WINDOW)
        while not member.eof:
            try:
                part = member.decompress(data, min(_STEP_BYTES, limit_bytes + 1 - size_bytes))
            except zlib.error as error:
                raise BadInputError(f"the body is not gzip: {error}", "send it as its Content-Encoding says") from None
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                raise RequestTooLargeError(limit_bytes)
            parts.append(part)
            data = member.unconsumed_tail
            if not part and not data and not member.eof:
                raise BadInputError("the gzip body ends in the middle", "send all of it")
        data = member.unused_data.lstrip(b"\0")  # padding after the last member is allowed
    return b"".join(parts)

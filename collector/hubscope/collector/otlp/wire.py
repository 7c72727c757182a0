"""Protobuf's wire format, for writing: what the exporters in the application write it with, with a larger table.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final

from hubscope.exporters.encoding import wire
from hubscope.exporters.encoding.wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    double,
    fixed32,
    fixed64,
    signed_fixed64,
    tag,
    zigzag,
)

__all__ = [
    "FIXED32",
    "FIXED64",
    "LENGTH",
    "LENGTHS",
    "VARINT",
    "double",
    "fixed32",
    "fixed64",
    "signed_fixed64",
    "tag",
    "varint",
    "zigzag",
]

# Nearly every length, enum and count. 3 ms at import, which a collector has and an application has not.
LENGTHS: Final = [wire.varint(number) for number in range(1 << 14)]


def varint(number: int) -> bytes:
    """An integer; a negative one in ten bytes, as two's complement of 64 bits."""
    if 0 <= number < 1 << 14:
        return LENGTHS[number]
    return wire.varint(number)

"""Protobuf's wire format, for writing: one function a kind of field, each giving the tag and the value as bytes.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

_U64: Final = (1 << 64) - 1
fixed32: Final = struct.Struct("<I").pack
fixed64: Final = struct.Struct("<Q").pack
signed_fixed64: Final = struct.Struct("<q").pack
double: Final = struct.Struct("<d").pack


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


LENGTHS: Final = [_varint(number) for number in range(1 << 14)]  # nearly every length, enum and count


def varint(number: int) -> bytes:
    """An integer; a negative one in ten bytes, as two's complement of 64 bits."""
    if 0 <= number < 1 << 14:
        return LENGTHS[number]
    return _varint(number & _U64)


def zigzag(number: int) -> bytes:
    """A sint32: small magnitudes of either sign are short."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def tag(number: int, wire_type: int) -> bytes:
    """What stands before a field's value."""
    return varint(number << 3 | wire_type)

"""AnyValue of every kind (opentelemetry/proto/common/v1/common.proto), as the stock encoder maps Python's types.

What the stock encoder refuses goes by the specification's "Mapping Arbitrary Data to OTLP AnyValue": an integer beyond
64 bits becomes its decimal text, and an object of another kind its `str`. Text that is no Unicode (lone surrogates)
gets replacement characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.wire import double, field, varint

STRING: Final = b"\x0a"
FALSE: Final = b"\x10\x00"
TRUE: Final = b"\x10\x01"
INT: Final = b"\x18"
DOUBLE: Final = b"\x21"
_ARRAY: Final = b"\x2a"
_KVLIST: Final = b"\x32"
_BYTES: Final = b"\x3a"
_ITEM: Final = b"\x0a"  # of ArrayValue and of KeyValueList
_KEY: Final = b"\x0a"
_VALUE: Final = b"\x12"

# Parsers of protobuf refuse a request nested deeper than 100 messages; a level of a mapping takes three, a log record
# stands in four. A request with one deeper value would be refused with everything in it.
MAX_DEPTH: Final = 30


def utf8(text: Any) -> bytes:
    """The text of a string field. Anything but a `str` is written as its `str`."""
    if not isinstance(text, str):
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    written: str = text
    try:
        return str.encode(written)  # not its own `encode`: a subclass may have another
    except UnicodeEncodeError:
        losses.replaced("text", "with lone surrogates", "text with replacement characters")
        # By way of UTF-16: there a pair of surrogates is one character again.
        return str.encode(written, "utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def int_value(value: int) -> bytes:
    """An AnyValue of an integer."""
    if -(1 << 63) <= value < 1 << 63:
        return INT + varint(value)
    losses.replaced("integer", "beyond 64 bits", "decimal text")
    return field(STRING, b"%d" % value)


def any_value(value: Any, within: tuple[int, ...] = ()) -> bytes:
    """The content of an AnyValue, without a tag. `within` are the ids of the containers that it stands in."""
    if value is None:
        return b""
    if isinstance(value, str):
        return field(STRING, utf8(value))
    if isinstance(value, bool):
        return TRUE if value else FALSE
    if isinstance(value, int):
        return int_value(int(value))
    if isinstance(value, float):
        return DOUBLE + double(value)
    if isinstance(value, bytes):
        return field(_BYTES, value)
    if not isinstance(value, (Sequence, Mapping)):
        return _as_text(value, "value of type")
    if len(within) >= MAX_DEPTH or id(value) in within:
        return _as_text(value, "deeper than 30 levels, or in itself:")
    within = (*within, id(value))
    if isinstance(value, Sequence):
        return field(_ARRAY, b"".join([field(_ITEM, any_value(item, within)) for item in value]))
    # The application may change it meanwhile: a copy is taken at once.
    pairs = [field(_ITEM, key_value(str(key), item, within)) for key, item in tuple(value.items())]
    return field(_KVLIST, b"".join(pairs))


def key_part(key: Any) -> bytes:
    """A KeyValue as far as its value's length."""
    return field(_KEY, utf8(key)) + _VALUE


def key_value(key: Any, value: Any, within: tuple[int, ...] = ()) -> bytes:
    """The content of a KeyValue."""
    content = any_value(value, within)
    return key_part(key) + varint(len(content)) + content


def _as_text(value: Any, what: str) -> bytes:
    losses.replaced(what, type(value).__name__, "its text")
    return field(STRING, utf8(str(value)))

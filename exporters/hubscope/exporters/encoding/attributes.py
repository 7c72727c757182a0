"""Attribute lists, from finished bytes where key and value were seen before.

Of a span's attributes the keys are always the same few hundred, and most values few (a method, a route, a status).
So each key keeps what stands before its value, and its first values as whole fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.values import DOUBLE, FALSE, STRING, TRUE, any_value, int_value, key_part, utf8
from hubscope.exporters.encoding.wire import LENGTH, double, tag, varint

# 256 keys of 32 values of at most 64 characters: 0.14 MB for 40 keys of 20 values each, and 4 MB at most. A key with
# more values than that is an id or a measure: keeping those would cost memory and gain nothing, so its first 32 stay
# and the others are written each time. One key too many, and all is learnt again (2 µs a key).
MAX_KEYS: Final = 256
MAX_VALUES: Final = 32
MAX_TEXT: Final = 64

_TEXT: Final = tuple([STRING + varint(size) for size in range(MAX_TEXT + 1)])  # before a text of so many bytes


class _Key:
    """What is known of one key: finished fields, and the beginnings of fields that need only a value."""

    __slots__ = ("before_float", "begin", "false", "fields", "heads", "tag", "true")

    def __init__(self, tag: bytes, key: Any) -> None:
        self.tag = tag
        self.begin = key_part(key)
        self.heads: dict[int, bytes] = {}  # what stands before an AnyValue of so many bytes
        self.true = self.field(TRUE)
        self.false = self.field(FALSE)
        self.before_float = self.head(9) + DOUBLE
        self.fields: dict[str | int, bytes] = {}  # by value; never a bool, which equals 0 or 1

    def field(self, value: bytes) -> bytes:
        """The whole field of an AnyValue."""
        return self.head(len(value)) + value

    def head(self, size: int) -> bytes:
        head = self.heads.get(size)
        if head is None:
            length = varint(size)
            head = b"".join((self.tag, varint(len(self.begin) + len(length) + size), self.begin, length))
            if size <= MAX_TEXT + 2:
                self.heads[size] = head
        return head

    def new(self, value: Any, kind: type) -> bytes:
        """The field of a str or an int that was not seen before."""
        if kind is int:
            field = self.field(int_value(value))
        else:
            text = utf8(value)
            size = len(text)
            if size > MAX_TEXT:
                return self.field(STRING + varint(size) + text)
            field = self.head(size + 2) + _TEXT[size] + text
        if len(self.fields) < MAX_VALUES:
            self.fields[value] = field
        return field


def plain(attributes: Any) -> Mapping[Any, Any]:
    """The attributes as a dict: one call of C instead of one of Python for each item. None is empty."""
    if type(attributes) is dict:
        return attributes
    if attributes is None:
        return {}
    try:
        copy: dict[Any, Any] = attributes.copy()  # of BoundedAttributes, and of a view on a dict
    except AttributeError:
        return dict(attributes)
    return copy


class AttributeList:
    """Writes the attributes of one kind of message, a `repeated KeyValue` with this field number."""

    def __init__(self, number: int) -> None:
        self._tag = tag(number, LENGTH)
        self._keys: dict[Any, _Key] = {}

    def write(self, attributes: Mapping[Any, Any], append: Callable[[bytes], object]) -> None:
        """Append each attribute's field. One that cannot be written is left out."""
        keys = self._keys
        for key, value in attributes.items():
            try:
                known = keys.get(key)
                if known is None:
                    known = self._learn(key)
                kind = type(value)
                if kind is str or kind is int:
                    append(known.fields.get(value) or known.new(value, kind))
                elif kind is float:
                    append(known.before_float + double(value))
                elif kind is bool:
                    append(known.true if value else known.false)
                else:
                    append(known.field(any_value(value)))
            except Exception as error:  # noqa: BLE001 - whatever an odd value raises, the others are sent
                losses.left_out("attribute", key, error)

    def _learn(self, key: Any) -> _Key:
        known = _Key(self._tag, key)
        if len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        if len(known.begin) <= 2 * MAX_TEXT:
            self._keys[key] = known
        return known


# One for each field number in use, whatever the message: what is kept is kept once.
FIELD_1: Final = AttributeList(1)  # Resource, KeyValueList, ExponentialHistogramDataPoint
FIELD_3: Final = AttributeList(3)  # InstrumentationScope, Span.Event
FIELD_4: Final = AttributeList(4)  # Span.Link
FIELD_6: Final = AttributeList(6)  # LogRecord
FIELD_7: Final = AttributeList(7)  # NumberDataPoint, Exemplar
FIELD_9: Final = AttributeList(9)  # Span, HistogramDataPoint

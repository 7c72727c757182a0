"""OTLP/JSON to OTLP protobuf: ProtoJSON with OTLP's differences.

Trace and span ids are hexadecimal text in either case (not base64) and enums are integers; 64-bit numbers come as text
or number, exponents included; bytes as base64 of either alphabet, padded or not; null is absent, except as an
id; of a key that stands twice the last counts; two members of a oneof are an error; unknown keys are ignored. Keys are
lowerCamelCase: the proto's own names (`resource_spans`) are unknown keys, as the specification says.
"""

from __future__ import annotations

import functools
import json
import math
from base64 import b64decode
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Signal
from hubscope.collector.otlp import wire
from hubscope.errors import BadInputError

Request = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
_REQUESTS: Final[dict[Signal, type[Request]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
# protobuf's own parsers stop at 100 messages inside each other; a nested array takes two.
MAX_DEPTH: Final = 100
MAX_DIGITS: Final = 400  # the largest double has 309
MAX_PATH: Final = 240  # characters of a message
# Parsed JSON takes up to 370 B of memory an object or list, and 150 B a member: 3 B of `{},` are 200 B. An ordinary
# request of 64 MiB has 1.5 million of the first and 3.6 million of both, and takes 670 MB.
MAX_CONTAINERS: Final = 1_600_000
MAX_MEMBERS: Final = 4_000_000
_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_REMEDY: Final = "send OTLP/JSON as the OpenTelemetry protocol describes it"
_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_INTEGERS: Final = {
    FieldDescriptor.TYPE_FIXED32: (wire.FIXED32, wire.fixed32),
    FieldDescriptor.TYPE_FIXED64: (wire.FIXED64, wire.fixed64),
    FieldDescriptor.TYPE_SFIXED64: (wire.FIXED64, wire.signed_fixed64),
    FieldDescriptor.TYPE_SINT32: (wire.VARINT, wire.zigzag),
}
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class _WrongError(Exception):
    """What is wrong with a value; its path is put together on the way up."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path: list[str] = []


# The wire form of a field's value at a depth: of a list with its tags, of anything else without.
_Convert = Callable[[Any, int], bytes]
_Field = tuple[str, bytes, _Convert]  # the proto's name, what stands before the value, and what makes bytes of it
_messages: dict[str, dict[str, _Field]] = {}
# Attributes repeat: with them kept, one costs 0.4 us instead of 1.3. Key, kind, value and the value's type, for True
# and 1.0 equal 1.
_attributes: dict[tuple[str, str, Any, type], bytes] = {}
MAX_ATTRIBUTES: Final = 50_000
MAX_KEPT_TEXT: Final = 256


def to_protobuf(text: bytes | str, signal: Signal) -> bytes:
    """The protobuf bytes of a request in OTLP/JSON. Raises BadInputError with the path of what is wrong."""
    return _encode(parse(text), signal)


def parse(text: bytes | str) -> Any:
    """JSON text as Python values. JSON is UTF-8 (RFC 8259), with a byte order mark or without. Raises BadInputError."""
    try:
        if not isinstance(text, str):
            _check_size(text)
            text = str(text, "utf-8-sig")
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError) or "int_max_str_digits" not in str(error):
                raise
            return json.loads(text, parse_constant=_refuse_constant, parse_int=_int)
    except RecursionError as error:
        raise BadInputError("the JSON is nested too deep", _REMEDY) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"the JSON is not UTF-8: {error.reason} at byte {error.start}", _REMEDY) from error
    except ValueError as error:
        raise BadInputError(f"not JSON: {str(error)[:200]}", _REMEDY) from error


class _HugeInteger(str):
    """The digits of an integer beyond every field; Python would refuse to read one of 4,300 at once."""

    __slots__ = ()


def _int(text: str) -> int | _HugeInteger:
    """For what Python refuses: called for every integer it would cost 0.1 us each."""
    return int(text) if len(text) <= MAX_DIGITS else _HugeInteger(text)


def _check_size(text: bytes) -> None:
    if len(text) < MAX_CONTAINERS:
        return
    containers = text.count(b"{") + text.count(b"[")
    members = containers + text.count(b",")
    if containers > MAX_CONTAINERS or members > MAX_MEMBERS:
        raise BadInputError(
            f"the JSON has {containers} objects and lists and {members} members; the limits are {MAX_CONTAINERS} and"
            f" {MAX_MEMBERS}",
            "send smaller batches",
        )


def unknown_keys(text: bytes, signal: Signal) -> list[str]:
    """The keys of the outermost object that a request of this signal does not know, as sent. `text` is good JSON."""
    known = _fields(_REQUESTS[signal].DESCRIPTOR)
    return [key for key in parse(text) if key not in known]


def from_value(value: Any, signal: Signal) -> Request:
    """The request that parsed JSON stands for. Raises BadInputError with the path of what is wrong."""
    return _REQUESTS[signal].FromString(_encode(value, signal))


def _encode(value: Any, signal: Signal) -> bytes:
    try:
        return _message(_fields(_REQUESTS[signal].DESCRIPTOR), value, 0)
    except _WrongError as error:
        path = "".join(reversed(error.path)).lstrip(".")
        if len(path) > MAX_PATH:  # or the reason behind it would be cut off
            path = f"{path[: MAX_PATH // 2]}…{path[-MAX_PATH // 2 :]}"
        raise BadInputError(f"{path + ': ' if path else ''}{error}", _REMEDY) from error
    except ValueError as error:  # such as text with half a surrogate pair
        raise BadInputError(f"not OTLP/JSON: {str(error)[:200]}", _REMEDY) from error


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number; as a text it is")


def _message(fields: dict[str, _Field], value: Any, depth: int) -> bytes:
    """The wire form of a message, without its length, from a JSON object.

    Written at once and not by way of a message object: 8 us a span of seven attributes instead of 21.
    """
    if type(value) is not dict:
        raise _WrongError(f"must be an object, got {_shown(value)}")
    if depth > MAX_DEPTH:
        raise _WrongError(f"more than {MAX_DEPTH} levels deep")
    parts: dict[str, bytes] = {}  # by the proto's name, or that of the oneof: of one there can be one
    depth += 1
    key = ""
    try:
        for key, given in value.items():
            field = fields.get(key)
            if field is None or (given is None and field[0] not in _IDS):
                continue
            name, tag, convert = field
            if name in parts:
                raise _WrongError(f"is a second value for {name!r}, of which there can be one")
            parts[name] = tag + convert(given, depth)
    except _WrongError as error:
        error.path.append(f".{key}")
        raise
    return b"".join(parts.values())


def _delimited(encoded: bytes) -> bytes:
    """With its length before it."""
    return wire.varint(len(encoded)) + encoded


def _list(tag: bytes, convert: _Convert, packed: bool, given: Any, depth: int) -> bytes:
    """A repeated field: each value behind its tag, or all behind one with their length."""
    if type(given) is not list:
        raise _WrongError(f"must be a list, got {_shown(given)}")
    parts: list[bytes] = []
    try:
        for member in given:
            parts.append(convert(member, depth))
    except _WrongError as error:
        error.path.append(f"[{len(parts)}]")
        raise
    if not parts:
        return b""
    return tag + (_delimited(b"".join(parts)) if packed else tag.join(parts))


def _key_value(fields: dict[str, _Field], value: Any, depth: int) -> bytes:
    """A KeyValue with its length, kept where it is of a short text or a number."""
    try:
        ((kind, content),) = value["value"].items()
        known = (value["key"], kind, content, content.__class__)
        found = _attributes.get(known)
        if found is not None and len(value) == 2:
            return found
    except (KeyError, TypeError, AttributeError, ValueError):
        return _delimited(_message(fields, value, depth))
    found = _delimited(_message(fields, value, depth))
    if content.__class__ is int or (content.__class__ is str and len(content) <= MAX_KEPT_TEXT):
        if len(_attributes) >= MAX_ATTRIBUTES:
            _attributes.clear()
        if len(value) == 2:
            _attributes[known] = found
    return found


def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    fields = _messages.get(descriptor.full_name)
    if fields is None:
        fields = _messages[descriptor.full_name] = {}
        for field in descriptor.fields:
            fields[field.json_name] = _field(field)
    return fields


def _field(field: FieldDescriptor) -> _Field:
    wire_type, convert = _converter(field)
    if not field.is_repeated:
        oneof = field.containing_oneof  # an `optional` field has one of its own
        return oneof.name if oneof else field.name, wire.tag(field.number, wire_type), convert
    packed = wire_type != wire.LENGTH
    tag = wire.tag(field.number, wire.LENGTH)
    return field.name, b"", functools.partial(_list, tag, convert, packed)


def _converter(field: FieldDescriptor) -> tuple[int, _Convert]:
    """The field's wire type, and what makes bytes of one of its values."""
    inner = field.message_type
    if inner is not None:
        fields = _fields(inner)
        if inner.full_name == "opentelemetry.proto.common.v1.KeyValue":
            return wire.LENGTH, functools.partial(_key_value, fields)
        return wire.LENGTH, lambda value, depth: _delimited(_message(fields, value, depth))
    if field.cpp_type in _RANGES:
        low, high = _RANGES[field.cpp_type]
        textual = field.cpp_type != FieldDescriptor.CPPTYPE_ENUM
        wire_type, pack = _INTEGERS.get(field.type, (wire.VARINT, wire.varint))

        def integer(value: Any, depth: int) -> bytes:
            if (
                textual
                and value.__class__ is str
                and len(value) == 19
                and value[0] != "0"
                and value.isdecimal()
                and value.isascii()
            ):
                number = int(value)  # a time of this century, in nanoseconds: 0.2 us where the general way takes 0.6
                if number <= high:
                    return pack(number)
            return pack(_integer(value, low, high, textual))

        return wire_type, integer
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return wire.FIXED64, lambda value, depth: wire.double(_double(value))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return wire.VARINT, _boolean
    if field.type == FieldDescriptor.TYPE_BYTES:
        return wire.LENGTH, _identifier if field.name in _IDS else _bytes
    return wire.LENGTH, _text


def _integer(value: Any, low: int, high: int, textual: bool) -> int:
    if isinstance(value, _HugeInteger):
        raise _WrongError(f"must be between {low} and {high}, got {_shown(value)}")
    number = value
    if type(value) is str and textual:
        number = _number(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _WrongError(f"must be an integer, got {_shown(value)}")
    if not low <= number <= high:
        raise _WrongError(f"must be between {low} and {high}, got {_shown(value)}")
    return number


def _double(value: Any) -> float:
    if isinstance(value, _HugeInteger):
        raise _WrongError(f"must fit a double, got {_shown(value)}")
    if isinstance(value, str):
        if value in _NOT_FINITE:
            return _NOT_FINITE[value]
        value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongError(f"must be a number, got {_shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise _WrongError(f"must fit a double, got {_shown(value)}") from None


def _number(text: str) -> int | float:
    """A number as JSON writes it, out of a string."""
    try:
        number = json.loads(text) if text[:1].isdigit() or text[:1] == "-" else None
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or text != text.strip():
        raise _WrongError(f"must be a number, got {_shown(text)}")
    return number


def _boolean(value: Any, depth: int) -> bytes:
    if not isinstance(value, bool):
        raise _WrongError(f"must be true or false, got {_shown(value)}")
    return b"\x01" if value else b"\x00"


def _text(value: Any, depth: int) -> bytes:
    if type(value) is not str:
        raise _WrongError(f"must be text, got {_shown(value)}")
    return _delimited(value.encode())


def _identifier(value: Any, depth: int) -> bytes:
    try:
        if value.__class__ is str and value.isalnum():
            identifier = bytes.fromhex(value)
            return wire.LENGTHS[len(identifier)] + identifier if len(identifier) < 128 else _delimited(identifier)
        if value == "":
            return b"\0"
    except ValueError:
        pass
    raise _WrongError(f"must be hexadecimal text, got {_shown(value)}")


def _bytes(value: Any, depth: int) -> bytes:
    try:
        if type(value) is str:
            plain = value.rstrip("=").replace("-", "+").replace("_", "/")
            return _delimited(b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except ValueError:
        pass
    raise _WrongError(f"must be base64 text, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A short form of a wrong value: never megabytes of somebody's input."""
    if isinstance(value, dict | list):  # of any depth, which `dumps` may not have
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"

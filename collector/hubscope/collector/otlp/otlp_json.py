"""OTLP/JSON to OTLP protobuf: ProtoJSON with OTLP's differences.

Trace and span ids are hexadecimal text in either case (not base64) and enums are integers; 64-bit numbers come as text
or number, exponents included; bytes as base64 of either alphabet, padded or not; null is absent, except as an
id; unknown keys are ignored. Keys are lowerCamelCase, and the proto's own names are taken too.
"""

from __future__ import annotations

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
from hubscope.errors import BadInputError

Request = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
_REQUESTS: Final[dict[Signal, type[Request]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
# protobuf's own parsers stop at 100 messages inside each other; a nested array takes two.
MAX_DEPTH: Final = 100
_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_REMEDY: Final = "send OTLP/JSON as the OpenTelemetry protocol describes it"
_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class _WrongError(Exception):
    """What is wrong with a value; its path is put together on the way up."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.path: list[str] = []


_Field = tuple[str, bool, Callable[[Any, int], Any]]  # proto name, repeated, converter of one value at a depth
_messages: dict[str, dict[str, _Field]] = {}


def to_protobuf(text: bytes | str, signal: Signal) -> bytes:
    """The protobuf bytes of a request in OTLP/JSON. Raises BadInputError with the path of what is wrong."""
    return from_value(parse(text), signal).SerializeToString()


def parse(text: bytes | str) -> Any:
    """JSON text as Python values. Raises BadInputError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise BadInputError("the JSON is nested too deep", _REMEDY) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"the JSON is not UTF-8: {error.reason} at byte {error.start}", _REMEDY) from error
    except ValueError as error:
        raise BadInputError(f"not JSON: {str(error)[:200]}", _REMEDY) from error


def from_value(value: Any, signal: Signal) -> Request:
    """The request that parsed JSON stands for. Raises BadInputError with the path of what is wrong."""
    message = _REQUESTS[signal]
    try:
        if not isinstance(value, dict):
            raise _WrongError(f"must be an object, got {_shown(value)}")
        return message(**_message(message.DESCRIPTOR, value, 0))
    except _WrongError as error:
        path = "".join(reversed(error.path)).lstrip(".")
        raise BadInputError(f"{path + ': ' if path else ''}{error}", _REMEDY) from error
    except (ValueError, TypeError) as error:  # such as text with half a surrogate pair
        raise BadInputError(f"not OTLP/JSON: {str(error)[:200]}", _REMEDY) from error


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number; as a text it is")


def _message(descriptor: Descriptor, value: Any, depth: int) -> dict[str, Any]:
    """Keyword arguments of the message, from a JSON object."""
    if not isinstance(value, dict):
        raise _WrongError(f"must be an object, got {_shown(value)}")
    if depth > MAX_DEPTH:
        raise _WrongError(f"more than {MAX_DEPTH} levels deep")
    fields = _messages.get(descriptor.full_name) or _compile(descriptor)
    answer: dict[str, Any] = {}
    for key, given in value.items():
        field = fields.get(key)
        if field is None:
            continue
        name, repeated, convert = field
        if given is None and name not in _IDS:
            continue
        try:
            answer[name] = _list(given, convert, depth) if repeated else convert(given, depth + 1)
        except _WrongError as error:
            error.path.append(f".{key}")
            raise
    return answer


def _list(given: Any, convert: Callable[[Any, int], Any], depth: int) -> list[Any]:
    if not isinstance(given, list):
        raise _WrongError(f"must be a list, got {_shown(given)}")
    answer = []
    for index, member in enumerate(given):
        try:
            answer.append(convert(member, depth + 1))
        except _WrongError as error:
            error.path.append(f"[{index}]")
            raise
    return answer


def _compile(descriptor: Descriptor) -> dict[str, _Field]:
    fields: dict[str, _Field] = {}
    for field in descriptor.fields:
        entry = (field.name, bool(field.is_repeated), _converter(field))
        fields[field.json_name] = fields[field.name] = entry
    _messages[descriptor.full_name] = fields
    return fields


def _converter(field: FieldDescriptor) -> Callable[[Any, int], Any]:
    if field.message_type is not None:
        inner = field.message_type
        return lambda value, depth: _message(inner, value, depth)
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        textual = kind != FieldDescriptor.CPPTYPE_ENUM
        return lambda value, depth: _integer(value, low, high, textual)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _double
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _boolean
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _identifier if field.name in _IDS else _bytes
    return _text


def _integer(value: Any, low: int, high: int, textual: bool) -> int:
    number = value
    if isinstance(value, str) and textual:
        number = _number(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _WrongError(f"must be an integer, got {_shown(value)}")
    if not low <= number <= high:
        raise _WrongError(f"must be between {low} and {high}, got {_shown(value)}")
    return number


def _double(value: Any, depth: int) -> float:
    if isinstance(value, str):
        return _NOT_FINITE[value] if value in _NOT_FINITE else float(_number(value))
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


def _boolean(value: Any, depth: int) -> bool:
    if not isinstance(value, bool):
        raise _WrongError(f"must be true or false, got {_shown(value)}")
    return value


def _text(value: Any, depth: int) -> str:
    if not isinstance(value, str):
        raise _WrongError(f"must be text, got {_shown(value)}")
    return value


def _identifier(value: Any, depth: int) -> bytes:
    try:
        if isinstance(value, str) and value.isalnum():
            return bytes.fromhex(value)
        if value == "":
            return b""
    except ValueError:
        pass
    raise _WrongError(f"must be hexadecimal text, got {_shown(value)}")


def _bytes(value: Any, depth: int) -> bytes:
    try:
        if isinstance(value, str):
            plain = value.rstrip("=").replace("-", "+").replace("_", "/")
            return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        pass
    raise _WrongError(f"must be base64 text, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A short form of a wrong value: never megabytes of somebody's input."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"

"""AnyValue, OTLP's value of any kind, as text and the name of its type.

Text is what the lake's maps hold: integers and doubles in decimal, bytes in base64, arrays and key-value lists as
JSON. Inside that JSON, strings, booleans, integers, finite doubles (always with a point or an exponent), lists,
objects and null (an empty value) stand for themselves; what JSON has no form for stands as OTLP/JSON writes it:
`{"bytesValue": "…"}` and `{"doubleValue": "NaN"}`.

Whole columns are converted by Arrow. Only bytes and nested values are looked at one by one: ptars gives the members of
a recursive message as raw protobuf, and Arrow has no base64.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

STRING: Final = ""  # the type of a string is not named: nearly every value is one

# Kind of AnyValue -> the name in the `…Types` maps, in the order of their numbers.
_TYPES: Final = {
    "string_value": STRING,
    "bool_value": "bool",
    "int_value": "int",
    "double_value": "double",
    "array_value": "array",
    "kvlist_value": "kvlist",
    "bytes_value": "bytes",
}
EMPTY: Final = "empty"
_TYPE_NAMES: Final = pa.array([*_TYPES.values(), EMPTY])
STRING_KIND: Final = 0
_EMPTY_KIND: Final = len(_TYPES)


class OverlappingKindsError(ValueError):
    """A oneof came twice on the wire. The last one counts; ptars shows both and not which was last."""


def texts(values: pa.StructArray) -> tuple[pa.StringArray, Any]:
    """The text of every AnyValue, without nulls, and its kind (int8[values], STRING_KIND or one that `type_names`
    knows); the kinds are None where all are strings.

    Raises OverlappingKindsError where a value has two kinds: parse and serialise the request once, then ask again.
    """
    strings = values.field("string_value")
    if strings.null_count == 0 and values.null_count == 0 and _other_kinds(values) == 0:
        return strings, None
    kinds = np.where(_valid(strings), np.int8(STRING_KIND), np.int8(_EMPTY_KIND))
    parts: list[pa.Array] = [strings]
    filled = len(strings) - strings.null_count
    for code, kind in enumerate(_TYPES):
        column = values.field(kind)
        count = len(column) - column.null_count
        if not count or code == STRING_KIND:
            continue
        filled += count
        kinds[_valid(column)] = code
        parts.append(_texts_of_kind(kind, column))
    if filled > int(np.count_nonzero(kinds != _EMPTY_KIND)):
        raise OverlappingKindsError("a value with two kinds")
    return pc.coalesce(*parts, ""), kinds


def type_names(kinds: Any) -> pa.StringArray:
    """The names of kinds, as the `…Types` maps have them."""
    return _TYPE_NAMES.take(pa.array(kinds))


def text_of(value: AnyValue) -> tuple[str, str]:
    """The text and the type of one value, the same as `texts` gives for it."""
    kind = value.WhichOneof("value")
    if kind is None:
        return "", EMPTY
    if kind == "string_value":
        return value.string_value, STRING
    if kind == "bytes_value":
        return b64encode(value.bytes_value).decode(), "bytes"
    if kind in ("array_value", "kvlist_value"):
        return _json(_plain(value)), _TYPES[kind]
    return str(pc.cast(pa.scalar(getattr(value, kind)), pa.string())), _TYPES[kind]


def _other_kinds(values: pa.StructArray) -> int:
    return sum(len(values) - values.field(kind).null_count for kind in list(_TYPES)[1:])


def _valid(column: pa.Array) -> Any:
    return pc.is_valid(column).to_numpy(zero_copy_only=False)


def _texts_of_kind(kind: str, column: pa.Array) -> pa.Array:
    """Texts where the column has a value, null elsewhere."""
    if kind not in ("array_value", "kvlist_value", "bytes_value"):
        return pc.cast(column, pa.string())
    where = np.flatnonzero(_valid(column))
    chosen = column.take(pa.array(where))
    if kind == "bytes_value":
        found = [b64encode(item).decode() for item in chosen.to_pylist()]
    elif kind == "array_value":
        found = _nested(chosen.field("values"), _array_json)
    else:
        found = _nested(chosen.field("values"), _kvlist_json)
    index = np.full(len(column), -1, dtype=np.int64)
    index[where] = np.arange(len(where))
    return pa.array(found, pa.string()).take(pa.array(index, mask=index < 0))


def _nested(lists: pa.ListArray, to_json: Any) -> list[str]:
    """JSON of each list of raw members. The same list is often sent with every span: convert it once."""
    known: dict[Any, str] = {}
    answer = []
    for members in lists.to_pylist():
        key = tuple(tuple(m.values()) if isinstance(m, dict) else m for m in members)
        text = known.get(key)
        if text is None:
            text = known[key] = to_json(members)
        answer.append(text)
    return answer


def _array_json(members: list[bytes]) -> str:
    return _json([_plain(AnyValue.FromString(member)) for member in members])


def _kvlist_json(members: list[Any]) -> str:
    """Members are raw KeyValues inside an attribute, and (key, raw AnyValue) structs inside a log record's body."""
    answer = {}
    for member in members:
        if isinstance(member, dict):
            raw = member["value"]
            answer[member["key"]] = None if raw is None else _plain(AnyValue.FromString(raw))
        else:
            pair = KeyValue.FromString(member)
            answer[pair.key] = _plain(pair.value)
    return _json(answer)


def _plain(value: AnyValue) -> Any:
    """The value as `json` writes it. Nesting is bounded: the front's parser refuses more than 100 levels."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_plain(member) for member in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _plain(pair.value) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return {"bytesValue": b64encode(value.bytes_value).decode()}
    if kind == "double_value" and not math.isfinite(value.double_value):
        number = value.double_value
        return {"doubleValue": "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"}
    return getattr(value, kind)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

"""An attribute's text and type, as the lake keeps them, back to OTLP's AnyValue in its JSON form.

The one reading of that text: what exports traces writes it as it is, and what forwards derived rows parses it into
messages. `hubscope.lake_schema` says what the text is.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")


def any_value(text: str, kind: str) -> dict[str, Any]:
    """`{"intValue": "3"}` for "3" and "int"; {} for an empty value. `kind` is as `…Types` maps have it, '' a string."""
    if kind == "int":
        return {"intValue": text}
    if kind == "double":
        return {"doubleValue": _double(float(text))}
    if kind == "bool":
        return {"boolValue": text == "true"}
    if kind == "bytes":
        return {"bytesValue": text}
    if kind in ("array", "kvlist"):
        return _nested(json.loads(text))
    return {} if kind == "empty" else {"stringValue": text}


def _nested(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": _double(value)}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_nested(item) for item in value]}}
    # What JSON has no form for stands as OTLP writes it; a list with such a key and another value is a list.
    if value.keys() == {"bytesValue"} and isinstance(value["bytesValue"], str):
        return dict(value)
    if value.keys() == {"doubleValue"} and value["doubleValue"] in _NOT_FINITE:
        return dict(value)
    return {"kvlistValue": {"values": [{"key": key, "value": _nested(item)} for key, item in value.items()]}}


def _double(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")

"""Consistent probability sampling as OpenTelemetry has it: whoever samples a trace with a ratio keeps the same ones.

A trace has 56 bits of randomness R: `rv` in the `ot` entry of its trace state, or the last seven bytes of its id (W3C
Trace Context level 2). It is kept where R >= T, the rejection threshold `th`; 2^56 / (2^56 - T) is how many traces it
then stands for. Source: OpenTelemetry specification, "TraceState: Probability Sampling".
"""

from __future__ import annotations

import re
from typing import Final

DIGITS: Final = 14
ALL: Final = 1 << 56
_PRECISION: Final = 4  # digits of a threshold after its leading f's, as the Collector's sampling package has it
_THRESHOLD: Final = re.compile("[0-9a-f]{1,14}")
_RANDOMNESS: Final = re.compile("[0-9a-f]{14}")
_ID: Final = re.compile("[0-9a-f]{32}")


def threshold_of(ratio: float) -> int:
    """The rejection threshold of a ratio from 0 to 1, as precise as it is written."""
    exact = min(ALL, max(0, round((1.0 - ratio) * ALL)))
    if exact == ALL:
        return ALL
    digits = f"{exact:014x}"
    kept = min(DIGITS, len(digits) - len(digits.lstrip("f")) + _PRECISION)
    unit = 1 << 4 * (DIGITS - kept)
    return min(ALL, (exact + unit // 2) // unit * unit)


def adjusted_count(threshold: int) -> float:
    """How many spans one that was kept stands for."""
    return ALL / (ALL - threshold)


def randomness(trace_id: str, trace_state: str = "") -> int | None:
    """R of a trace, from its id in 32 lower-case hexadecimal digits; None for an id of another form."""
    explicit = _member(trace_state).get("rv", "")
    if _RANDOMNESS.fullmatch(explicit):
        return int(explicit, 16)
    return int(trace_id[-DIGITS:], 16) if _ID.fullmatch(trace_id) else None


def threshold_in(trace_state: str) -> int | None:
    """The threshold that a trace state has, if it has one."""
    text = _member(trace_state).get("th", "")
    return int(text.ljust(DIGITS, "0"), 16) if _THRESHOLD.fullmatch(text) else None


def with_threshold(trace_state: str, threshold: int) -> str:
    """The trace state with this threshold. The `ot` entry comes first, as W3C wants of one that was changed."""
    fields = {**_member(trace_state), "th": f"{threshold:014x}".rstrip("0") or "0"}
    others = [entry for entry in _entries(trace_state) if entry.partition("=")[0].strip() != "ot"]
    return ",".join(["ot=" + ";".join(f"{key}:{text}" for key, text in fields.items()), *others])


def _entries(trace_state: str) -> list[str]:
    return [entry.strip() for entry in trace_state.split(",") if entry.strip()]


def _member(trace_state: str) -> dict[str, str]:
    """The fields of the `ot` entry."""
    if "ot=" not in trace_state:
        return {}
    for entry in _entries(trace_state):
        key, _, value = entry.partition("=")
        if key.strip() == "ot":
            pairs = (field.partition(":") for field in value.split(";") if ":" in field)
            return {name.strip(): text.strip() for name, _, text in pairs}
    return {}

"""Targets and thresholds: `< 3`, `>= 60`, `< 500 ms`. Parsing and judging, nothing else."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# What a quantity may be written in -> (the base unit it stands for, how many of them).
UNITS: Final[dict[str, tuple[str, float]]] = {
    "ns": ("s", 1e-9),
    "us": ("s", 1e-6),
    "ms": ("s", 1e-3),
    "s": ("s", 1.0),
    "min": ("s", 60.0),
    "h": ("s", 3600.0),
    "By": ("By", 1.0),
    "kB": ("By", 1e3),
    "MB": ("By", 1e6),
    "GB": ("By", 1e9),
    "KiB": ("By", 2.0**10),
    "MiB": ("By", 2.0**20),
    "GiB": ("By", 2.0**30),
    "%": ("1", 0.01),
}
_QUANTITY: Final = re.compile(r"\s*([-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?)\s*(\S*)\s*")
_TARGET: Final = re.compile(r"\s*(<=|>=|<|>)(.*)", re.DOTALL)


def parse_quantity(text: str, unit: str = "") -> float:
    """`text` ("3", "500 ms", "100 MiB", "10 MiB/h") as a number of `unit`s. No suffix means `unit` itself.

    Raises ValueError with a sentence that names what is wrong.
    """
    matched = _QUANTITY.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text.strip()!r} is not a number with an optional unit, such as 3, 500 ms or 100 MiB")
    number, suffix = float(matched[1].replace("_", "")), matched[2]
    if not suffix or suffix == unit:
        return number
    written, written_per = suffix.partition("/")[::2]
    wanted, wanted_per = unit.partition("/")[::2]
    if written not in UNITS:
        raise ValueError(f"unit {suffix!r} is not known; known are {', '.join(UNITS)}")
    base, factor = UNITS[written]
    if base != wanted or written_per != wanted_per:
        raise ValueError(f"{suffix!r} cannot stand for the unit {unit!r}")
    return number * factor


def plural(noun: str) -> str:
    """`plugin` -> `plugins`, `query` -> `queries`, `index` -> `indexes`."""
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def show_quantity(value: float, unit: str) -> str:
    """A value with its unit as a person writes it: `120 MiB`, `31.2 s`, `38 %`, `15 plugins`, `60 frames/s`."""
    base, per = unit.partition("/")[::2]
    suffix = f"/{per}" if per else ""
    if base == "By":
        for name in ("GiB", "MiB", "KiB"):
            if abs(value) >= UNITS[name][1]:
                return f"{value / UNITS[name][1]:.3g} {name}{suffix}"
        return f"{value:.4g} B{suffix}"
    if base == "s":
        for name in ("s", "ms", "us"):
            if abs(value) >= UNITS[name][1]:
                return f"{value / UNITS[name][1]:.3g} {'µs' if name == 'us' else name}{suffix}"
    if unit == "1":
        return f"{value * 100:.3g} %"
    number = f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"  # never 1e+04
    if not base.startswith("{"):
        return f"{number} {unit}".rstrip()
    noun = base.strip("{}").replace("_", " ")
    return f"{number} {noun if abs(value) == 1 else plural(noun)}{suffix}"


@dataclass(frozen=True)
class Target:
    """A comparison with a limit. `limit` is in the unit of the record that holds it, `text` as it was written."""

    operator: str  # <, <=, >, >=
    limit: float
    text: str

    @classmethod
    def parse(cls, text: str, unit: str = "") -> Target:
        """`"< 3"`, `">= 60"`, `"< 500 ms"` (with unit "s": limit 0.5). Raises ValueError with a sentence."""
        matched = _TARGET.fullmatch(text)
        if matched is None:
            raise ValueError(f"{text!r} does not begin with <, <=, > or >=")
        return cls(matched[1], parse_quantity(matched[2], unit), text.strip())

    @property
    def lower_is_better(self) -> bool:
        return self.operator in ("<", "<=")

    def judge(self, value: float) -> bool:
        """Whether `value` (in the record's unit) meets it. NaN never does."""
        return not math.isnan(value) and _OPERATORS[self.operator](value, self.limit)

    def __str__(self) -> str:
        return self.text

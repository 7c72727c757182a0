"""How figures are written: three significant digits, a unit that needs no exponent, a dash where nothing is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from hubscope.processors.targets import Target, plural

UNKNOWN = "–"
SHARE = "share"  # not a UCUM unit: a number of unit 1 whose target is in percent

_TIME = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_TICKS = "▁▂▃▄▅▆▇█"


def digits(value: float) -> str:
    """`value` with three significant digits and no exponent: 0.0123, 1.2, 12.3, 12,345."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity(value: float | None, unit: str) -> str:
    """`value` in `unit` (UCUM, as OpenTelemetry writes units) as a person says it; a dash where it is None.

    Seconds become ms or µs, bytes MiB (2^20, as the plan counts), `By/h` MiB/h; annotations such as `{row}` lose
    their braces and are counted; `1` has no unit; `SHARE` is a part of one, said in percent.
    """
    if value is None:
        return UNKNOWN
    base, _, per = unit.partition("/")
    suffix = f"/{per.strip('{}')}" if per else ""
    size = abs(value)
    if base == "s":
        if size >= 120:
            return _long_time(value) + suffix
        factor, name = next(((f, n) for f, n in _TIME if size >= f * 0.9995), _TIME[-1] if size else _TIME[0])
        return f"{digits(value / factor)} {name}{suffix}"
    if base == "By":
        factor, name = next(((f, n) for f, n in _BYTES if size >= f * 0.9995), (1.0, "B"))
        return f"{digits(value / factor)} {name}{suffix}"
    if unit == SHARE:
        return f"{digits(value * 100)} %"
    if base in ("1", ""):
        return digits(value) + suffix
    name = base.strip("{}").replace("_", " ")
    return f"{digits(value)} {plural(name) if base.startswith('{') and size != 1 else name}{suffix}"


def axis_unit(unit: str) -> str:
    """The unit that an axis' ticks are written in: what is counted (`{plugin}`) would not fit beside each."""
    return "1" if unit.startswith("{") else unit


def _long_time(seconds: float) -> str:
    size = abs(seconds)
    for factor, name in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if size >= factor * 2 or name == "min":
            return f"{digits(seconds / factor)} {name}"
    raise AssertionError("unreachable: minutes take everything")


def interval(low: float | None, high: float | None, unit: str) -> str:
    """`low` to `high`; the unit once where both share it; empty where either is unknown."""
    if low is None or high is None:
        return ""
    first, last = quantity(low, unit), quantity(high, unit)
    if first == last:
        return first
    first_number, _, first_unit = first.partition(" ")
    if first_unit and first_unit == last.partition(" ")[2]:
        first = first_number
    return f"{first} to {last}"


def target(text: str | None, unit: str) -> str:
    """A KPI's target as written (`< 100 ms`), with the KPI's unit where it names none; a dash where there is none."""
    limit = target_limit(text, unit)
    if text is None or limit is None:
        return text or UNKNOWN
    if text.strip()[-1].isdigit():
        return f"{text.strip().partition(' ')[0]} {quantity(limit, unit)}"
    return text.strip()


def target_limit(text: str | None, unit: str) -> float | None:
    """The limit of a target in the KPI's unit (`< 500 ms` of a KPI in s is 0.5); None where there is none."""
    if not text:
        return None
    try:
        return Target.parse(text, "1" if unit == SHARE else unit).limit
    except ValueError:
        return None


def change(relative: float | None) -> str:
    """A relative change, signed: 0.123 is `+12 %`."""
    if relative is None:
        return UNKNOWN
    percent = relative * 100
    if abs(percent) < 0.05:
        return "±0 %"
    text = f"{percent:+.1f}" if abs(percent) < 10 else f"{percent:+,.0f}"
    return text.replace("-", "−") + " %"


def share(part: float | None) -> str:
    """A share between 0 and 1 as a percentage."""
    if part is None:
        return UNKNOWN
    return f"{part * 100:.1f} %" if part < 0.0995 else f"{part * 100:.0f} %"


def per_day(seconds: float | None) -> str:
    """Time a day; a dash where no rate is known."""
    return UNKNOWN if seconds is None else f"{quantity(seconds, 's')} a day"


def sparkline(values: Sequence[float], width: int = 10) -> str:
    """The last `width` values as block characters, from the lowest to the highest; empty for fewer than two."""
    shown = list(values)[-width:]
    if len(shown) < 2:
        return ""
    low, high = min(shown), max(shown)
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        return _TICKS[3] * len(shown)
    return "".join(_TICKS[round((value - low) / (high - low) * (len(_TICKS) - 1))] for value in shown)


def moment(text: str | None) -> str:
    """An RFC 3339 time as `2026-03-01 12:00 UTC`; a dash where there is none."""
    if not text:
        return UNKNOWN
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def span_of_time(start: str | None, end: str | None) -> str:
    """A window as one phrase; the day is not said twice."""
    if not start or not end:
        return "no data"
    first, last = moment(start), moment(end)
    if first == last:
        return first
    if first[:10] == last[:10]:
        return f"{first[:16]} to {last[11:]}"
    return f"{first[:16]} to {last}"


def printable(text: str) -> str:
    """`text` without control characters: what came as telemetry must not steer the reader's terminal."""
    return "".join(c if c.isprintable() or c == " " else "\ufffd" for c in " ".join(text.split()))


def cut_middle(text: str, width: int, head: float = 0.5) -> str:
    """`text` in at most `width` characters: both ends say more of a module or a query's shape than its middle.

    `head` is the share of what is left that its beginning gets.
    """
    if len(text) <= width:
        return text
    tail = min(math.floor((width - 1) * (1 - head)), width - 1)
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def cut_pair(names: Sequence[str], joint: str, width: int) -> str:
    """One name, or a plugin and its hook, in at most `width` characters, each of them still to be recognised.

    Of a pair the longer one gives way, until both are of one length. Of a plugin's name the end is kept rather than
    the beginning: `datasette.default_…` and `datasette-…` are what all of a program's plugins begin with.
    """
    whole = joint.join(names)
    room = width - len(joint)
    if len(whole) <= width or len(names) != 2 or room < 4:
        return cut_middle(whole, width)
    first, second = names
    first_width = min(len(first), max((room + 1) // 2, room - len(second)))
    return f"{cut_middle(first, first_width, head=0.3)}{joint}{cut_middle(second, room - first_width)}"


def count(number: int, one: str, many: str = "") -> str:
    """`1 run`, `3 runs`, `1,200 runs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def dimensions(pairs: Mapping[str, str]) -> str:
    """The dimensions of a metric in one line: the values, which say enough; empty where there are none."""
    return ", ".join(str(value) for value in pairs.values())

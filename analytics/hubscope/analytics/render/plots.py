"""Small SVG plots without a library: colours come from the page's style sheet, positions are plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from hubscope.analytics.model import Comparison, Kpi, LedgerEntry, RunValue
from hubscope.analytics.render import numbers, outline

WIDTH, HEIGHT = 340, 128
SPARK_WIDTH, SPARK_HEIGHT = 96, 22
SPARK_POINTS = 32  # 3 px each
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24


def nice_ticks(low: float, high: float, wanted: int = 3) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover `low` to `high`, about `wanted` steps."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9) * step
    ticks = [first]
    while ticks[-1] < high - step * 1e-9:
        ticks.append(first + len(ticks) * step)
    return ticks


def unit_ticks(low: float, high: float, unit: str, wanted: int = 3) -> list[float]:
    """`nice_ticks` that are round as they are written: bytes go by powers of 1024."""
    if unit.partition("/")[0] != "By" or high <= 0:
        return nice_ticks(low, high, wanted)
    factor = 1024.0 ** max(0, math.floor(math.log(high, 1024)))
    return [tick * factor for tick in nice_ticks(low / factor, high / factor, wanted)]


def kpi_plot(kpi: Kpi) -> Markup:
    """One point a run, oldest first, with the target as a dashed line; versions alternate their mark."""
    unit = outline.kpi_unit(kpi)
    limit = numbers.target_limit(kpi.target, unit)
    label = f"{kpi.name} by run: " + ", ".join(numbers.quantity(p.value, unit) for p in kpi.points[-20:])
    return run_plot(kpi.points, unit, limit, label)


def run_plot(points: Sequence[RunValue], unit: str, limit: float | None, label: str) -> Markup:
    """Values over runs with axes; empty for no point. `limit` joins the scale where it is within 4 times the values."""
    if not points:
        return Markup("")
    values = [point.value for point in points]
    low, high = min(0.0, *values), max(values)
    shown_limit = limit if limit is not None and limit <= 4 * high else None
    ticks = unit_ticks(low, max(high, shown_limit or high), unit)
    scale = (HEIGHT - _TOP - _BOTTOM) / (ticks[-1] - ticks[0])

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - ticks[0]) * scale, 1)

    step = (WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    xs = [round(_LEFT + step * (i + 0.5), 1) for i in range(len(values))]
    parts = [Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)]
    for tick in ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, WIDTH - _RIGHT, y(tick), y(tick)
            )
        )
        text = numbers.quantity(tick, numbers.axis_unit(unit)) if tick else "0"
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 6, y(tick) + 3.5, text
            )
        )
    if shown_limit is not None:
        parts.append(
            Markup('<line class="target" x1="{}" x2="{}" y1="{}" y2="{}"><title>{}</title></line>').format(
                _LEFT, WIDTH - _RIGHT, y(shown_limit), y(shown_limit), f"target {numbers.quantity(limit, unit)}"
            )
        )
    parts += _versions(points, xs, step)
    if len(points) > 1:
        line = " ".join(f"{x},{y(v)}" for x, v in zip(xs, values, strict=True))
        parts.append(Markup('<polyline class="series" points="{}"/>').format(line))
    radius = 3.5 if len(points) <= 30 else 1.8
    for x, point in zip(xs, points, strict=True):
        title = f"{numbers.quantity(point.value, unit)}, {numbers.moment(point.start)}" + (
            f", version {point.version}" if point.version else ""
        )
        parts.append(
            Markup('<circle class="point" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                x, y(point.value), radius, title
            )
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def sparkline(kpi: Kpi) -> Markup:
    """The runs of a KPI as one line of text is high, on a scale from zero, the target as a dashed line where it fits.

    Without points there is nothing to draw: empty.
    """
    if not kpi.points:
        return Markup("")
    unit = outline.kpi_unit(kpi)
    limit = numbers.target_limit(kpi.target, unit)
    points = kpi.points[-SPARK_POINTS:]
    values = [point.value for point in points]
    low, high = min(0.0, *values), max(values)
    shown_limit = limit if limit is not None and limit <= 4 * high else None
    top = max(high, shown_limit or high)
    scale = (SPARK_HEIGHT - 6) / (top - low) if top > low else 0.0

    def y(value: float) -> float:
        return round(SPARK_HEIGHT - 3 - (value - low) * scale, 1)

    step = SPARK_WIDTH / len(values)
    xs = [round(step * (i + 0.5), 1) for i in range(len(values))]
    label = f"{kpi.name} by run: " + ", ".join(numbers.quantity(value, unit) for value in values[-20:])
    parts = [
        Markup('<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
            SPARK_WIDTH, SPARK_HEIGHT, label, label
        )
    ]
    if shown_limit is not None:
        parts.append(
            Markup('<line class="target" x1="0" x2="{}" y1="{}" y2="{}"/>').format(
                SPARK_WIDTH, y(shown_limit), y(shown_limit)
            )
        )
    if len(values) > 1:
        line = " ".join(f"{x},{y(value)}" for x, value in zip(xs, values, strict=True))
        parts.append(Markup('<polyline class="series" points="{}"/>').format(line))
    parts.append(Markup('<circle class="point" cx="{}" cy="{}" r="2.6"/></svg>').format(xs[-1], y(values[-1])))
    return Markup("").join(parts)


def _versions(points: Sequence[RunValue], xs: Sequence[float], step: float) -> list[Markup]:
    """A label below the axis for each stretch of one version, with a line where the next begins."""
    stretches: list[tuple[str, int, int]] = []
    for i, point in enumerate(points):
        version = point.version or ""
        if stretches and stretches[-1][0] == version:
            stretches[-1] = (version, stretches[-1][1], i)
        else:
            stretches.append((version, i, i))
    if len(stretches) > 8:  # labels would overlap
        return [Markup('<text class="tick" x="{}" y="{}">{}</text>').format(_LEFT, HEIGHT - 6, "runs, oldest first")]
    parts = []
    for version, first, last in stretches:
        if first:
            x = round(xs[first] - step / 2, 1)
            parts.append(
                Markup('<line class="border" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, _TOP, HEIGHT - _BOTTOM)
            )
        runs = numbers.count(last - first + 1, "run")
        version = f"v{version}" if version[:1].isdigit() else version
        label = f"{version} · {runs}" if version and (last - first + 1) * step > 60 else version or runs
        middle = round((xs[first] + xs[last]) / 2, 1)
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, HEIGHT - 6, label)
        )
    return parts


def _share(value: float) -> str:
    return f"{min(max(value, 0.0), 1.0) * 100:.2f}%"


def lane(parts: Sequence[Markup], label: str, css: str) -> Markup:
    """An SVG without a view box: widths are percentages of whatever room there is."""
    return Markup('<svg class="{}" role="img" aria-label="{}">{}</svg>').format(css, label, Markup("").join(parts))


def change_scale(comparisons: Sequence[Comparison]) -> float:
    """The relative change at the ends of the axis: what the widest interval needs, between 5 % and 100 %."""
    ends = [abs(v) for c in comparisons for v in (c.low, c.high, c.change) if v is not None]
    return min(max(max(ends, default=0.0) * 1.1, 0.05), 1.0)


def change_lane(comparison: Comparison, scale: float) -> Markup:
    """The relative change with its interval around the zero line; ends beyond the axis stop at it."""

    def x(change: float) -> float:
        return 0.5 + change / scale / 2

    label = f"change {numbers.change(comparison.change)}"
    parts = [Markup('<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>')]
    if comparison.low is not None and comparison.high is not None and comparison.change is not None:
        label += f", {numbers.change(comparison.low)} to {numbers.change(comparison.high)}"
        parts.append(
            Markup('<line class="whisker {}" x1="{}" x2="{}" y1="50%" y2="50%"><title>{}</title></line>').format(
                comparison.verdict, _share(x(comparison.low)), _share(x(comparison.high)), label
            )
        )
        parts.append(
            Markup('<circle class="dot {}" cx="{}" cy="50%" r="4.5"><title>{}</title></circle>').format(
                comparison.verdict, _share(x(comparison.change)), label
            )
        )
    return lane(parts, label, "interval")


def ledger_lane(entry: LedgerEntry) -> Markup:
    """The predicted range as a band and the observed saving with its interval, on one scale from zero."""
    ends = [entry.predicted_high, entry.predicted, entry.observed_high, entry.observed]
    low = min([0.0, *(v for v in (entry.predicted_low, entry.observed_low, entry.observed) if v is not None)])
    length = (max(v for v in ends if v is not None) - low) * 1.05 or 1.0

    def x(value: float) -> str:
        return _share((value - low) / length)

    width = _share((entry.predicted_high - entry.predicted_low) / length)
    parts = [
        Markup('<line class="axis" x1="0" x2="100%" y1="50%" y2="50%"/>'),
        Markup('<rect class="band" x="{}" width="{}" y="3" height="16" rx="3"><title>predicted</title></rect>').format(
            x(entry.predicted_low), width
        ),
    ]
    if entry.observed is not None:
        if entry.observed_low is not None and entry.observed_high is not None:
            parts.append(
                Markup('<line class="whisker same" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(
                    x(entry.observed_low), x(entry.observed_high)
                )
            )
        verdict = {True: "better", False: "worse", None: "same"}[entry.covered]
        parts.append(
            Markup('<circle class="dot {}" cx="{}" cy="50%" r="4.5"><title>observed</title></circle>').format(
                verdict, x(entry.observed)
            )
        )
    predicted = f"predicted {numbers.quantity(entry.predicted, entry.unit)}"
    return lane(parts, f"{predicted}, observed {numbers.quantity(entry.observed, entry.unit)}", "interval")


def meter(part: float, css: str, low: float | None = None, high: float | None = None) -> Markup:
    """A bar that fills `part` (0..1) of the room; `low` and `high` draw a whisker at its end."""
    parts = [Markup('<rect class="{}" x="0" width="{}" y="0" height="100%" rx="3"/>').format(css, _share(part))]
    if low is not None and high is not None:
        parts.append(
            Markup('<line class="range" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(_share(low), _share(high))
        )
    return Markup('<svg class="meter" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def bars(starts_and_lengths: Sequence[tuple[float, float]], css: str, y: float, height: float, title: str) -> Markup:
    """Bars of a waterfall lane. Their outline (1 px, in the style sheet) keeps the shortest span visible."""
    shapes = [
        Markup('<rect x="{}" width="{}" y="{}" height="{}" rx="2"/>').format(_share(start), _share(length), y, height)
        for start, length in starts_and_lengths
    ]
    return (
        Markup('<g class="{}"><title>{}</title>{}</g>').format(css, title, Markup("").join(shapes))
        if shapes
        else Markup("")
    )

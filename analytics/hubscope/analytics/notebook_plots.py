"""Two plots for a notebook, as SVG and without a plotting library: bars by name, and values run by run.

Colours are written out, on a light ground of their own: Jupyter shows SVG apart from its page, where the page's
colours do not reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from hubscope.analytics.render import numbers
from hubscope.analytics.render.plots import unit_ticks

WIDTH: Final = 760
BAR_PX, GAP_PX = 20, 8
MOST_BARS: Final = 20
_LABEL_PX, _VALUE_PX, _TITLE_PX = 250, 90, 46
_LABEL_LETTERS: Final = 36
_PALETTE: Final = ("#2f5bd0", "#d07c2f", "#1e8a72", "#8a5bd0", "#b3261e", "#6b7280")
_STYLE: Final = "font-family:system-ui,sans-serif;font-size:13px"


class Plot:
    """An SVG that Jupyter shows. `svg` is its text."""

    def __init__(self, svg: str, label: str) -> None:
        self.svg = svg
        self.label = label

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<plot: {self.label}>"


def bars(rows: Sequence[Mapping[str, Any]], label: str, value: str, unit: str = "s", title: str = "") -> Plot:
    """One bar a row, in the order given, at most `MOST_BARS`; `label` and `value` are column names."""
    shown = [row for row in rows if row.get(value) is not None][:MOST_BARS]
    if not shown:
        return _empty(title)
    top = max(max(float(row[value]) for row in shown), 0.0) or 1.0
    room = WIDTH - _LABEL_PX - _VALUE_PX
    parts = []
    for i, row in enumerate(shown):
        amount = float(row[value])
        y = _TITLE_PX + i * (BAR_PX + GAP_PX)
        name = str(row.get(label) or "(none)")
        short = name if len(name) <= _LABEL_LETTERS else name[: _LABEL_LETTERS - 1] + "…"
        length = max(room * max(amount, 0.0) / top, 1.0)
        parts.append(_text(_LABEL_PX - 10, y + 15, short, anchor="end", tooltip=name))
        parts.append(
            Markup('<rect x="{}" y="{}" width="{:.1f}" height="{}" rx="3" fill="{}"/>').format(
                _LABEL_PX, y, length, BAR_PX, _PALETTE[0]
            )
        )
        parts.append(_text(_LABEL_PX + length + 8, y + 15, numbers.quantity(amount, unit), fill="#5b6270"))
    left_out = len(rows) - len(shown)
    height = _TITLE_PX + len(shown) * (BAR_PX + GAP_PX) + 10
    return _svg(height, f"{title} (the first {len(shown)} of {len(rows)})" if left_out > 0 else title, parts)


def by_run(
    rows: Sequence[Mapping[str, Any]], value: str, series: str = "", unit: str = "s", title: str = "", height: int = 260
) -> Plot:
    """One point a row, from left to right in the order given; `series` is the column that colours them."""
    shown = [row for row in rows if row.get(value) is not None]
    if not shown:
        return _empty(title)
    names = list(dict.fromkeys(str(row.get(series, "")) for row in shown))
    values = [float(row[value]) for row in shown]
    ticks = unit_ticks(min(0.0, *values), max(values), unit, 4)
    left, right, bottom = 76, 20, height - 34
    scale = (bottom - _TITLE_PX) / (ticks[-1] - ticks[0])
    parts = []
    for tick in ticks:
        y = bottom - (tick - ticks[0]) * scale
        parts.append(
            Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" stroke="#e4e1dc"/>').format(left, WIDTH - right, y, y)
        )
        parts.append(
            _text(left - 8, y + 4, numbers.quantity(tick, unit) if tick else "0", anchor="end", fill="#5b6270")
        )
    step = (WIDTH - left - right) / len(shown)
    for i, (row, amount) in enumerate(zip(shown, values, strict=True)):
        x, y = left + step * (i + 0.5), bottom - (amount - ticks[0]) * scale
        name = str(row.get(series, ""))
        colour = _PALETTE[names.index(name) % len(_PALETTE)]
        tooltip = f"{name} {numbers.quantity(amount, unit)}".strip()
        parts.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}"><title>{}</title></circle>').format(
                x, y, colour, tooltip
            )
        )
    x = left
    for i, name in enumerate(names if series else []):
        if x > WIDTH - 120:
            parts.append(_text(x, height - 8, f"and {len(names) - i} more", fill="#5b6270"))
            break
        parts.append(
            Markup('<circle cx="{}" cy="{}" r="4" fill="{}"/>').format(x, height - 12, _PALETTE[i % len(_PALETTE)])
        )
        text = f"{series} {name or '(none)'}"
        parts.append(_text(x + 9, height - 8, text, fill="#5b6270"))
        x += 30 + 7 * len(text)
    return _svg(height, title, parts)


def _text(x: float, y: float, text: str, anchor: str = "start", fill: str = "#1b1e24", tooltip: str = "") -> Markup:
    title = Markup("<title>{}</title>").format(tooltip) if tooltip else Markup("")
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}">{}{}</text>').format(
        x, y, anchor, fill, text, title
    )


def _svg(height: float, title: str, parts: Sequence[Markup]) -> Plot:
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img"'
        ' aria-label="{t}" style="{s}"><rect width="{w}" height="{h}" rx="8" fill="#ffffff"/>'
    ).format(w=WIDTH, h=height, t=title, s=_STYLE)
    heading = Markup('<text x="14" y="24" font-weight="600" fill="#1b1e24">{}</text>').format(title)
    return Plot(str(head + heading + Markup("").join(parts) + Markup("</svg>")), title)


def _empty(title: str) -> Plot:
    return _svg(80, title, [_text(14, 54, "Nothing of this kind was recorded.", fill="#5b6270")])

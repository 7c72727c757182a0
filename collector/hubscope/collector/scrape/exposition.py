"""Families of metrics as text: OpenMetrics 1.0 with exemplars, and Prometheus' 0.0.4 without.

They differ in three things that readers mind: OpenMetrics names a counter's family without `_total`, ends in `# EOF`
and has units and exemplars; 0.0.4 has none of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS_TYPE: Final = "application/openmetrics-text"


class Exemplar(NamedTuple):
    """The span that a count was counted of. `time_s` since 1970."""

    trace_id: str
    span_id: str
    value: float
    time_s: float


class Sample(NamedTuple):
    """One line. `suffix` is behind the family's name: `_total`, `_bucket`, `_count`, `_sum`, or nothing."""

    suffix: str
    labels: tuple[tuple[str, str], ...]
    value: float
    exemplar: Exemplar | None = None


class Family(NamedTuple):
    """One metric. `name` is without `_total`, and ends in its unit where it has one."""

    name: str
    kind: str  # gauge, counter or histogram
    unit: str
    brief: str
    samples: Sequence[Sample]


def text(families: Iterable[Family], openmetrics: bool) -> str:
    """The page. A family without samples is not told."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = f"{family.name}_total" if family.kind == "counter" and not openmetrics else family.name
        lines += [f"# HELP {name} {_help(family.brief, openmetrics)}", f"# TYPE {name} {family.kind}"]
        if openmetrics and family.unit:
            lines.append(f"# UNIT {name} {family.unit}")
        for sample in family.samples:
            inner = ",".join(f'{label}="{escaped(value)}"' for label, value in sample.labels)
            line = f"{family.name}{sample.suffix}{{{inner}}} {number(sample.value)}"
            lines.append(line + _exemplar(sample.exemplar) if openmetrics and sample.exemplar else line)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""])


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header prefers OpenMetrics to plain text: asked for by name, and with no lower weight."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[media] = max(weights.get(media, 0.0), weight)
    wanted = weights.get(_OPENMETRICS_TYPE, 0.0)
    return wanted > 0 and wanted >= weights.get("text/plain", 0.0)


def number(value: float) -> str:
    """A number as both formats have it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def escaped(value: str) -> str:
    """A label's value between its quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(brief: str, openmetrics: bool) -> str:
    return escaped(brief) if openmetrics else brief.replace("\\", "\\\\").replace("\n", "\\n")


def _exemplar(exemplar: Exemplar) -> str:
    # 63 characters of names and values: OpenMetrics allows 128.
    labels = f'trace_id="{escaped(exemplar.trace_id)}",span_id="{escaped(exemplar.span_id)}"'
    return f" # {{{labels}}} {number(exemplar.value)} {exemplar.time_s:.3f}"

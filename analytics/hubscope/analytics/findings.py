"""What a detector returns, and the few things every detector needs to say it."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from hubscope.analytics.model import Bottleneck, Checked, Evidence, Impact, NotJudged
from hubscope.analytics.scope import Row, Scope


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Findings, what was looked at and is fine, and what could not be judged."""

    findings: tuple[Bottleneck, ...] = ()
    fine: tuple[Checked, ...] = ()
    not_judged: tuple[NotJudged, ...] = ()


def fingerprint(kind: str, service: str, *key: str) -> str:
    """The same for the same thing in every run and version: no id and no figure goes into it."""
    digest = hashlib.sha256("\0".join((kind, service, *key)).encode()).hexdigest()[:10]
    return f"{kind}-{digest}"


def severity_by_ratio(ratio: float) -> str:
    """How far past its limit: ten times is critical, twice high."""
    return "critical" if ratio >= 10 else "high" if ratio >= 2 else "medium"


def severity_by_share(share: float) -> str:
    """How much of what a user waits for: half is high, a tenth medium."""
    return "high" if share >= 0.5 else "medium" if share >= 0.1 else "low"


def duration(seconds: float) -> str:
    """Seconds for a sentence: three figures, in the unit a reader would choose."""
    if abs(seconds) >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if abs(seconds) >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def size(value: float, unit: str) -> str:
    """A figure for a sentence: bytes in MiB, seconds in their unit, the rest as it is."""
    if unit == "s":
        return duration(value)
    if unit.startswith("By"):
        return f"{value / 2**20:.3g} MiB{unit[2:]}"
    return f"{value:.0%}" if unit == "1" else f"{value:.3g} {unit}".strip()


def counted(number: int, one: str) -> str:
    """`1 plugin`, `3 plugins`."""
    return f"{number} {one}{'s' * (number != 1)}"


def grouped(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of `columns`, in order of first appearance."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[column] for column in columns)].append(row)
    return found


def typical(rows: Sequence[Row], column: str) -> float:
    """Median over runs of one row's figure a run."""
    return statistics.median(float(row[column]) for row in rows)


def total(rows: Iterable[Row], column: str) -> float:
    return sum(float(row[column] or 0.0) for row in rows)


def worst(rows: Sequence[Row], column: str) -> Row:
    return max(rows, key=lambda row: float(row[column] or 0.0))


def one_span(trace_id: str | None, span_id: str | None, parent_span_id: str = "") -> tuple[Evidence, ...]:
    """Evidence of a single offender; () where its trace is not known."""
    if not trace_id:
        return ()
    parents = (parent_span_id,) if parent_span_id else ()
    return (Evidence(trace_id, parents, (), (span_id,) if span_id else ()),)


def root_time_s(scope: Scope) -> dict[str, float]:
    """Time of each root operation over all runs."""
    found: dict[str, float] = defaultdict(float)
    for row in scope.rows("root_operations"):
        found[row["operation"]] += row["sum_s"]
    return dict(found)


def impact(scope: Scope, lost_s: float | None, share: float | None, kpi: str | None) -> Impact:
    """What a finding costs: `lost_s` seconds in all of the observed time (None: not known), its share of a KPI."""
    if lost_s is None:
        return Impact(None, share, kpi, reason="how much time it costs was not measured")
    spent = scope.spent(lost_s)
    return Impact(spent.per_day, share, kpi, spent.seconds, spent.observed_s, spent.reason)


def kpi_limit(scope: Scope, name: str, otherwise: float) -> float:
    """The limit of a KPI's target in the rules; the plan's own where the rules leave it out."""
    for rule in scope.rules.kpis:
        if rule.name == name and rule.target is not None:
            return rule.target.limit
    return otherwise


def subject(operation: str) -> str:
    """What a sentence calls an operation whose root span never came, because its process was killed, say."""
    return operation or "An operation whose root span never came"


# What detectors hold a figure against, besides the rules' targets. Each with its reason, in one place.
N_PLUS_ONE_QUERIES: Final = 5  # fewer are seldom worth the change
N_PLUS_ONE_NS: Final = 50_000_000  # half the plan's 100 ms for a response
SLOW_QUERY_SHARE: Final = 0.5  # of an operation that misses the response target
SLOW_QUERY_FLOOR_S: Final = 0.020  # a faster one is slow by being frequent, which is another finding
IMPORT_FLOOR_S: Final = 0.1  # a tenth of the plan's 1 s for a warm start
IMPORT_SHARE: Final = 0.05  # of the start
PHASE_SHARE: Final = 0.25  # of a start that misses its target
CACHE_LOOKUPS: Final = 100  # fewer say little about a rate near 80 %
CACHE_GAIN: Final = 0.1  # the hit rate must be able to rise by this much
# The first request of a process pays for lazy imports and cold caches; among fewer it sets the median as well as p95.
OVERHEAD_OPERATIONS: Final = 5
EXPLAINED: Final = 0.5  # what another finding explains to this share is not reported twice
# Most over least of a prediction's range: past an order of magnitude it says no more than that something is saved.
# Two runs reach it where one takes 1.44 times the other (Student's at 90 %), four where two take 5.4 times the others.
PREDICTION_WIDTH: Final = 10.0

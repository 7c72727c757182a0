"""KPIs, alerts and quotas as typed records, read from TOML: kpis.toml and quotas.toml beside this file, then the file
that `--rules` or HUBSCOPE_RULES names, whose records replace those of the same name and add to the rest.

A **KPI** says what is measured and what is good:

    name, title, unit, source   what it is called, its base unit (s, By, 1, …), where it is asked for
    aggregate    p50 p95 p99 mean min max last       of the values of the feed
                 distinct                            how many different values of the feed
                 reciprocal_mean                     1 / mean (frames a second from frame durations)
                 growth_per_h                        slope of the feed over time, the steepest process
                 ratio                               count(numerator) / count(denominator)
                 apdex                               of durations against `apdex_threshold_s`, with `ratings`
    target       Target or None; `judge(value)` gives pass, fail or unknown
    capability   True: a scale that must be supported. A smaller value only says that less was asked for, and is
                 unknown, never fail
    feeds        what it is measured on. Each feed is a complete measure; **the first one with any sample counts**
    numerator, denominator   the two feeds of a ratio (counts of spans, or increments of counters)
    window_s     the sliding window of the processors (event time)
    unknown      why there is no value when nothing feeds it
    note         what one should know when reading the value

A **feed** selects spans (`span`: any of these globs on the name, `kind`, `root`, `status`) or points of one `metric`
(gauge, sum, histogram, exponential histogram), both narrowed by `where`: attribute -> globs, one of which must match.
An absent attribute reads as '', so `?*` means present and `["", "1"]` absent or 1; a glob behind `!` must not match.
`value` is "duration" (spans, s), "value" (metrics) or the name of a numeric attribute.

An **alert** watches one KPI's window: raised once when `threshold` is met, again only after the value went back past
`clear`.

A **quota** limits one resource of plugins, for the plugins, tier and permission that it names; `window_s` 0 judges
each call.
The most particular record holds: a plugin's own before a tier's, a tier's before everybody's (`Rules.quota`).
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hubscope.processors.targets import Target, show_quantity
from hubscope.semconv import SPAN_FIRST_RENDER, SPAN_STARTUP

AGGREGATES: Final = (
    "p50", "p95", "p99", "mean", "min", "max", "last", "distinct", "reciprocal_mean", "growth_per_h", "ratio", "apdex",
)  # fmt: skip
SEVERITIES: Final = ("low", "medium", "high", "critical")
KINDS: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")  # as the lake writes them
RESOURCES: Final[dict[str, str]] = {  # resource -> its unit
    "memory": "By", "cpu": "1", "network": "By/s", "execution": "s", "filesystem": "By",
}  # fmt: skip
# The plan gives everybody who is not premium the standard quota (2.3: `tier === 'premium' ? … : …`).
DEFAULT_TIER: Final = "standard"


@dataclass(frozen=True)
class Feed:
    """Spans or metric points, and which number of each is meant. See the top of this file."""

    span: tuple[str, ...] = ()
    metric: str = ""
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: tuple[str, ...] = ()  # any of KINDS; empty: all
    root: bool = False  # only spans without a parent
    status: str = ""  # glob on Unset, Ok, Error; empty: all
    value: str = "duration"


@dataclass(frozen=True)
class Kpi:
    """What is measured and what is good. See the top of this file."""

    name: str
    title: str
    unit: str
    source: str
    aggregate: str
    severity: str
    unknown: str
    feeds: tuple[Feed, ...] = ()
    numerator: Feed | None = None
    denominator: Feed | None = None
    ratings: Feed | None = None  # apdex only: explicit scores between 0 and 1, each one a sample
    apdex_threshold_s: float = 0.0  # T of the Apdex formula
    target: Target | None = None
    capability: bool = False
    window_s: float = 60.0
    minimum_window_s: float = 0.0  # growth_per_h only: less than this shows no trend
    note: str = ""

    @property
    def has_own_set_up(self) -> bool:
        """Whether it is the time of a start, of which a part is the measuring's own set-up."""
        starts = {SPAN_STARTUP, SPAN_FIRST_RENDER}
        return self.unit == "s" and any(not starts.isdisjoint(feed.span) for feed in self.feeds)

    def is_missed_by_own_set_up(self, value: float, own_s: float) -> bool:
        """Whether it fails, and would not without the `own_s` that the measuring's own set-up took."""
        return own_s > 0 and self.judge(value) == "fail" and self.judge(max(value - own_s, 0.0)) != "fail"

    def judge(self, value: float | None) -> str:
        """`pass`, `fail`, or `unknown`: no value, no target, or a scale that was not asked for."""
        if value is None or math.isnan(value) or self.target is None:
            return "unknown"
        if self.target.judge(value):
            return "pass"
        return "unknown" if self.capability else "fail"

    def reason(self, value: float | None) -> str:
        """Why the status is unknown, as a sentence; '' where it is pass or fail."""
        if self.judge(value) != "unknown":
            return ""
        if value is None or math.isnan(value):
            return self.unknown
        if self.target is None:
            return "it has no target"
        seen = f"{show_quantity(value, self.unit)} {'was' if value == 1 else 'were'}"
        return f"only {seen} asked for, so {self.target} was neither shown nor refuted"


@dataclass(frozen=True)
class Alert:
    """A threshold on one KPI. See the top of this file."""

    name: str
    title: str
    kpi: str
    threshold: Target  # met = raised
    clear: float  # in the KPI's unit; back past this = may be raised again
    severity: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Quota:
    """A limit on one resource of plugins. See the top of this file."""

    name: str
    resource: str  # a key of RESOURCES
    limit: float  # in `unit`
    unit: str
    source: str
    tier: str = "*"
    plugin: str = "*"  # glob on the plugin's id
    permission: str = (
        ""  # "network": only plugins that have it; "!network": only plugins that said what they have, without it
    )
    window_s: float = 0.0
    note: str = ""

    def holds_for(self, plugin: str, tier: str, permissions: frozenset[str] | None) -> bool:
        """Whether the record is about this plugin. `permissions` None: it never said, and counts as permitted."""
        if self.tier not in ("*", tier) or not fnmatch.fnmatchcase(plugin, self.plugin):
            return False
        if not self.permission:
            return True
        forbidden = self.permission.startswith("!")
        has = permissions is None or self.permission.removeprefix("!") in permissions
        return has != forbidden


@dataclass(frozen=True)
class Rules:
    """All records that hold, the packaged ones and the overlay's; names are unique within each tuple."""

    kpis: tuple[Kpi, ...]
    alerts: tuple[Alert, ...]
    quotas: tuple[Quota, ...]

    def kpi(self, name: str) -> Kpi:
        """The KPI of that name. Raises KeyError."""
        for kpi in self.kpis:
            if kpi.name == name:
                return kpi
        raise KeyError(name)

    def quota(self, resource: str, plugin: str, tier: str, permissions: frozenset[str] | None) -> Quota | None:
        """The one quota that holds for this plugin and resource, or None: the most particular, of equals the last."""
        tier = tier or DEFAULT_TIER
        best: tuple[tuple[bool, bool, bool, bool], Quota] | None = None
        for quota in self.quotas:
            if quota.resource == resource and quota.holds_for(plugin, tier, permissions):
                rank = (quota.plugin == plugin, quota.plugin != "*", quota.tier != "*", bool(quota.permission))
                if best is None or rank >= best[0]:
                    best = (rank, quota)
        return best[1] if best else None

"""What every rendering shows, in which order: decided once, so that text, HTML and Markdown tell the same story."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hubscope.analytics.model import (
    COARSEST_EFFECT,
    STATES,
    Bottleneck,
    Breakdown,
    Comparison,
    ImportTime,
    Kpi,
    LedgerEntry,
    NotJudged,
    Recommendation,
    Report,
    StartupTime,
    TimeList,
    TimeRow,
    Trend,
    detectable,
    first_state,
)
from hubscope.analytics.render import numbers
from hubscope.semconv import OWN_PHASE

ONE_SIDED = 6  # operations that only one version has, in each line that names them
TOP_FINDINGS = 5  # on the terminal and in Markdown; the HTML shows all


@dataclass(frozen=True)
class Item:
    """One thing to change with the findings it mends; or findings that no prediction could be made for."""

    recommendation: Recommendation | None
    findings: tuple[Bottleneck, ...]
    observed: LedgerEntry | None  # what a later version showed, once one did

    @property
    def state(self) -> str:
        """One of model.STATES: what is open in one of its findings is open."""
        return first_state((finding.status for finding in self.findings), "open")

    @property
    def severity(self) -> str:
        return self.findings[0].severity if self.findings else "medium"


@dataclass(frozen=True)
class Spending:
    """One list of a breakdown, as it is shown."""

    title: str
    things: str  # what "3 more" counts
    listing: TimeList


def spendings(breakdown: Breakdown, shown: int) -> tuple[Spending, ...]:
    """The lists of a breakdown that hold anything, each cut to `shown` rows; what is cut joins the others."""
    lists = (
        Spending("Root operations", "operation", breakdown.operations),
        Spending("Queries by shape", "shape", breakdown.queries),
        Spending("Vector searches by index", "index", breakdown.vector_searches),
        Spending("Plugins by hook", "hook", breakdown.plugins),
    )
    return tuple(
        dataclasses.replace(spending, listing=shortened(spending.listing, shown))
        for spending in lists
        if spending.listing.rows
    )


def shortened(listing: TimeList, shown: int) -> TimeList:
    """The first rows of a list; the rest is added to its others, so that it still adds up."""
    if len(listing.rows) <= shown + (listing.others == 0):  # one row takes no more room than "1 more"
        return listing
    cut = listing.rows[shown:]
    return dataclasses.replace(
        listing,
        rows=listing.rows[:shown],
        others=listing.others + len(cut),
        others_calls=listing.others_calls + sum(row.calls for row in cut),
        others_total=listing.others_total + sum(row.total for row in cut),
    )


def shortened_imports(startup: StartupTime, shown: int) -> StartupTime:
    """The same for the imports of a start."""
    if len(startup.imports) <= shown + (startup.imports_others == 0):
        return startup
    cut = startup.imports[shown:]
    return dataclasses.replace(
        startup,
        imports=startup.imports[:shown],
        imports_others=startup.imports_others + len(cut),
        imports_others_self_time=startup.imports_others_self_time + sum(i.self_time for i in cut),
    )


JOINT: Final = " · "  # between a plugin and its hook, and an index and its type


def row_label(row: TimeRow, things: str) -> str:
    """A row's name; a hook with its plugin, an index with its type."""
    return JOINT.join(row_names(row, things))


def row_names(row: TimeRow, things: str) -> tuple[str, ...]:
    """The one or two names that are a row's label."""
    name = row.name or "(no name)"
    return (name, row.detail) if row.detail and things in ("hook", "index") else (name,)


def why_unpredicted(report: Report, finding: Bottleneck) -> str:
    """What would make a prediction for a finding without one, else why there is none; '' where nothing was said."""
    said = _said_of(report, finding)
    if finding.detector == "slow_query" and any("--database FILE" in judged.because for judged in said):
        return "give --database FILE and an index is tried on a copy"
    return said[-1].because if said else ""


def _said_of(report: Report, finding: Bottleneck) -> tuple[NotJudged, ...]:
    """Why the finding has no prediction."""
    return tuple(judged for judged in report.could_not_judge if not set(finding.fingerprints).isdisjoint(judged.for_))


def others_label(number: int, things: str) -> str:
    """`41 more shapes`."""
    return numbers.count(number, f"more {things}", {"index": "more indexes"}.get(things, ""))


def breakdown_title(breakdown: Breakdown) -> str:
    """`datasette 0.65.5: 2 runs, observed for 13.1 s`."""
    name = f"{breakdown.service or '(no name)'} {breakdown.version or ''}".strip()
    seen = f"observed for {numbers.quantity(breakdown.observed_for_seconds, 's')}"
    return f"{name}: {numbers.count(breakdown.runs, 'run')}, {seen}"


def startup_title(startup: StartupTime) -> str:
    """`Start-up: 1.24 s from process creation to listening (warm, median of 2 starts)`."""
    end = "the end of the process: it never became interactive" if startup.ended_by == "exit" else startup.ended_by
    starts = f"median of {startup.starts} starts" if startup.starts > 1 else "one start"
    how = ", ".join(part for part in (startup.type, starts) if part)
    title = f"Start-up: {numbers.quantity(startup.duration, 's')} from process creation to {end or 'its end'} ({how})"
    own_s = sum(phase.duration for phase in startup.phases if phase.phase == OWN_PHASE)
    if not own_s:
        return title
    return f"{title}; of it, {numbers.quantity(own_s, 's')} are hubscope's own set-up (phase {OWN_PHASE})"


def unjudged_comparisons(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """`4 metrics (a, b, c, …): why`, one for each reason, the most frequent first.

    Those whose reason ends with what their runs would show are one reason: they name the smallest of these, and the
    largest that is a figure.
    """
    by_reason: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.verdict == "unknown":
            by_reason.setdefault(_shared_reason(comparison), []).append(comparison)
    return tuple(
        f"{numbers.count(len(alike), 'metric')} ({_named(alike)}): {reason}{_would_show(alike)}"
        for reason, alike in sorted(by_reason.items(), key=lambda entry: -len(entry[1]))
    )


def _shared_reason(comparison: Comparison) -> str:
    """The reason without what this metric's runs alone would show."""
    effect = comparison.minimum_detectable_effect
    own = f"; {detectable(effect)}" if effect is not None else ""
    return comparison.reason.removesuffix(own) or "no reason was given"


def _named(comparisons: Sequence[Comparison]) -> str:
    titles = [comparison_title(comparison) for comparison in comparisons]
    return ", ".join(titles[:3]) + (", …" if len(titles) > 3 else "")


def _would_show(alike: Sequence[Comparison]) -> str:
    effects = [
        c.minimum_detectable_effect
        for c in alike
        if c.minimum_detectable_effect is not None and c.reason.endswith(detectable(c.minimum_detectable_effect))
    ]
    if not effects:
        return ""
    figures = sorted({f"{effect:.0%}": effect for effect in effects if effect <= COARSEST_EFFECT}.items(), key=_second)
    if not figures:
        return f"; {detectable(max(effects))}"
    low, high = figures[0][0], figures[-1][0]
    shown = f"; these runs would show {low}{f' to {high}' if high != low else ''} and more"
    coarse = sum(effect > COARSEST_EFFECT for effect in effects)
    return f"{shown}, and no change of {coarse} of them" if coarse else shown


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def import_label(entry: ImportTime) -> str:
    """`numpy (by pandas)`; the name alone where the application imports it itself."""
    if not entry.imported_by:
        return entry.module
    first, *more = entry.imported_by
    return f"{entry.module} (by {first}{' and others' if more else ''})"


def used(entry: ImportTime) -> str:
    """Whether an import was used before the application was interactive."""
    return {True: "yes", False: "no", None: "unknown"}[entry.used_before_interactive]


def items(report: Report) -> tuple[Item, ...]:
    """What is open, then what is unconfirmed, then what is mended; in each, recommendations with their findings,
    largest saving first, then the findings that none stands for."""
    by_fingerprint = {fingerprint: finding for finding in report.bottlenecks for fingerprint in finding.fingerprints}
    ledger = {(e.fingerprint, e.made_on): e for e in report.ledger.entries if e.observed_on is not None}
    advised = [
        Item(
            advice,
            tuple(
                {by_fingerprint[f].fingerprint: by_fingerprint[f] for f in advice.for_ if f in by_fingerprint}.values()
            ),
            ledger.get((advice.fingerprint, advice.version)),
        )
        for advice in report.recommendations
    ]
    covered = {fingerprint for advice in report.recommendations for fingerprint in advice.for_}
    rest = [Item(None, (finding,), None) for finding in report.bottlenecks if covered.isdisjoint(finding.fingerprints)]
    return tuple(sorted((*advised, *rest), key=lambda item: STATES.index(item.state)))


OPEN_TITLE: Final = "What to change, largest predicted saving first"
NOT_MENDED: Final = "no prediction: a later version does not show it, nor that its cause was changed"


def group_title(items: Sequence[Item], state: str) -> str:
    """The heading above the items of a state: `Mended since version 1`, where all were found on one version."""
    if state == "open":
        return OPEN_TITLE
    versions = {finding.version for item in items if item.state == state for finding in item.findings}
    version = versions.pop() if len(versions) == 1 else None
    if state == "unconfirmed":
        return f"Not found again since {_group(version) if version else 'an earlier version'}, not shown to be mended"
    return f"Mended since {_group(version)}" if version else "Mended in a later version"


def judged_kpis(report: Report) -> tuple[Kpi, ...]:
    """The KPIs with a value: missed targets first, then met ones, then those without a verdict."""
    order = {"fail": 0, "pass": 1}
    known = [kpi for kpi in report.summary.kpis if kpi.value is not None]
    return tuple(sorted(known, key=lambda kpi: order.get(kpi.status, 2)))


@dataclass(frozen=True)
class KpiGroup:
    """The KPIs of one service that stand together."""

    service: str
    kpis: tuple[Kpi, ...]

    @property
    def summary(self) -> str:
        """`2 missed, 8 met`; empty where none of them was judged."""
        counted = ((sum(kpi.status == status for kpi in self.kpis), name) for status, name in _STATUSES)
        return ", ".join(f"{number} {name}" for number, name in counted if number)


_STATUSES = (("fail", "missed"), ("pass", "met"))


def kpi_groups(report: Report, kpis: Sequence[Kpi]) -> tuple[KpiGroup, ...]:
    """`kpis` by service, in the report's order of services; those that no service sent come last."""
    order = {service: i for i, service in enumerate(report.services)}
    named = sorted({kpi.service or "" for kpi in kpis}, key=lambda s: (not s, order.get(s, len(order)), s))
    return tuple(
        KpiGroup(name or "sent by no service", tuple(kpi for kpi in kpis if (kpi.service or "") == name))
        for name in named
    )


def kpi_unit(kpi: Kpi) -> str:
    """The unit a KPI is shown in: a share where its target is in percent, so that both are said alike."""
    return numbers.SHARE if kpi.unit == "1" and kpi.target and kpi.target.rstrip().endswith("%") else kpi.unit


def not_judged(report: Report) -> tuple[NotJudged, ...]:
    """Everything that could not be judged, one reason a line; KPIs of one reason stand together."""
    named = {entry.what for entry in report.could_not_judge}
    by_reason: dict[str, list[str]] = {}
    for entry in report.could_not_judge:
        by_reason.setdefault(entry.because, []).append(entry.what)
    for kpi in report.summary.kpis:
        if kpi.value is None and not named & {kpi.name, f"KPI {kpi.name}"}:
            by_reason.setdefault(kpi.reason, []).append(kpi.name)
    return tuple(NotJudged(", ".join(dict.fromkeys(what)), because) for because, what in by_reason.items())


def told_comparisons(report: Report) -> tuple[tuple[Comparison, ...], tuple[Comparison, ...]]:
    """Comparisons that became better or worse (or could not be judged first-hand), and those that stayed the same."""
    order = {"worse": 0, "better": 1, "unknown": 2}
    told = [c for c in report.comparisons if c.verdict in ("worse", "better")]
    rest = [c for c in report.comparisons if c.verdict not in ("worse", "better", "new", "gone")]
    return tuple(sorted(told, key=lambda c: order[c.verdict])), tuple(rest)


def one_sided(comparisons: Sequence[Comparison], shown: int) -> tuple[str, ...]:
    """`new in version 3: task brand new (12 ms)`, one line for what appeared and one for what vanished."""
    lines = []
    for verdict, words in (("new", "new in"), ("gone", "gone since")):
        ones = [c for c in comparisons if c.verdict == verdict]
        for before, after in dict.fromkeys((c.before_group, c.after_group) for c in ones):
            mine = [c for c in ones if (c.before_group, c.after_group) == (before, after)]
            names = [
                f"{c.dimensions.get('operation') or '(no name)'} "
                f"({numbers.quantity(c.after if verdict == 'new' else c.before, c.unit)})"
                for c in mine
            ]
            more = f" and {len(names) - shown} more" if len(names) > shown else ""
            group = _group((after if verdict == "new" else before) or ("after" if verdict == "new" else "before"))
            lines.append(f"{words} {group}: {', '.join(names[:shown])}{more}")
    return tuple(lines)


def comparison_title(comparison: Comparison) -> str:
    """The metric with its dimensions, as one label."""
    where = numbers.dimensions(comparison.dimensions)
    if where and comparison.metric == "kpi":
        return where
    return f"{comparison.metric} · {where}" if where else comparison.metric


def scope(report: Report) -> tuple[str, ...]:
    """What the report looked at: services, runs, window. A comparison alone says that where it compares."""
    if report.comparisons and not report.runs:
        return ()
    services = ", ".join(report.services) or "no service"
    window = numbers.span_of_time(report.window.start, report.window.end)
    return (services, numbers.count(len(report.runs), "run"), window)


def comparison_verdict(comparisons: Sequence[Comparison]) -> str:
    """`2 metrics became better, 1 worse; 5 stayed the same, 3 could not be judged.`"""
    counted = {name: sum(c.verdict == name for c in comparisons) for name in ("better", "worse", "same", "unknown")}
    if not comparisons:
        return "The two have no metric in common that could be compared."
    became = f"{numbers.count(counted['better'], 'metric')} became better, {counted['worse']} worse"
    sides = [(sum(c.verdict == name for c in comparisons), word) for name, word in (("new", "new"), ("gone", "gone"))]
    one_side = ", ".join(f"{numbers.count(number, 'operation')} {word}" for number, word in sides if number)
    judged = f"{became}; {counted['same']} stayed the same, {counted['unknown']} could not be judged"
    return f"{judged}; {one_side}." if one_side else f"{judged}."


def comparison_groups(report: Report) -> str:
    """What was compared with what; empty where nothing was."""
    if not report.comparisons:
        return ""
    first = report.comparisons[0]
    before, after = _group(first.before_group or "before"), _group(first.after_group or "after")
    both = [c for c in report.comparisons if (c.before_group, c.after_group) == (first.before_group, first.after_group)]
    runs_before = numbers.count(max(c.runs_before for c in both), "run")
    runs_after = numbers.count(max(c.runs_after for c in both), "run")
    return f"{before} ({runs_before}) against {after} ({runs_after})"


def _group(name: str) -> str:
    """A version number alone reads as a count of something."""
    return f"version {name}" if re.fullmatch(r"\d[\w.+-]{0,19}", name) else name


def trend_sentence(trend: Trend) -> str:
    """`process.memory.usage rises 12 MB/h (9 to 15 MB/h, 10 points)`, or why nothing can be said."""
    where = numbers.dimensions(trend.dimensions)
    name = f"{trend.metric} · {where}" if where else trend.metric
    if trend.verdict == "unknown" or trend.slope is None:
        return f"{name}: not known" + (f", because {trend.reason}" if trend.reason else "")
    if trend.verdict == "flat":
        return f"{name} is flat ({numbers.count(trend.points, 'point')})"
    span = numbers.interval(trend.low, trend.high, trend.unit)
    figures = ", ".join(part for part in (span, numbers.count(trend.points, "point")) if part)
    verb = "rises" if trend.verdict == "rising" else "falls"
    changed = (
        f"; the level changed at {', '.join(numbers.moment(c) for c in trend.change_points)}"
        if trend.change_points
        else ""
    )
    return f"{name} {verb} {numbers.quantity(abs(trend.slope), trend.unit)} ({figures}){changed}"


def saving(advice: Recommendation) -> str:
    """The headline of a prediction: `310 ms less (280 to 340 ms)`."""
    predicted = advice.predicted
    span = numbers.interval(predicted.low, predicted.high, predicted.unit)
    return f"{numbers.quantity(predicted.saving, predicted.unit)} ({span or 'one run: no range'})"


def then(advice: Recommendation) -> str:
    """What a change leaves of the metric: `31 ms`, or `gone` where nothing of its time stays."""
    p = advice.predicted
    return "gone" if p.unit == "s" and p.then <= 0 else numbers.quantity(p.then, p.unit)


def metric_name(advice: Recommendation) -> str:
    where = numbers.dimensions(advice.predicted.dimensions)
    return f"{advice.predicted.metric} · {where}" if where else advice.predicted.metric


def worth(per_day: float | None, observed: float | None, observed_for: float | None) -> str:
    """Time a day where it may be stated, else what was observed: `3.1 s of the 41 s observed`."""
    if per_day is not None:
        return numbers.per_day(per_day)
    if not observed or observed_for is None:
        return ""
    return f"{numbers.quantity(observed, 's')} of the {numbers.quantity(observed_for, 's')} observed"


def saving_worth(advice: Recommendation) -> str:
    """What a change saves in all, as `worth` says it."""
    p = advice.predicted
    return worth(p.saving_seconds_per_day, p.saving_observed_seconds, p.observed_for_seconds)


def impact(finding: Bottleneck) -> str:
    """What a finding costs, as far as it is known: `12 min a day, 34 % of task.duration`."""
    cost = finding.impact
    lost = worth(cost.seconds_per_day, cost.observed_seconds, cost.observed_for_seconds)
    parts = [lost] if lost else []
    if finding.impact.share_of_kpi is not None and finding.impact.kpi:
        parts.append(f"{numbers.share(finding.impact.share_of_kpi)} of {finding.impact.kpi}")
    return ", ".join(parts)


def observation(entry: LedgerEntry) -> str:
    """A prediction beside what was observed: `predicted 310 ms (280 to 340 ms), observed 295 ms (…) on 2: agrees`."""
    predicted = numbers.quantity(entry.predicted, entry.unit)
    predicted_range = numbers.interval(entry.predicted_low, entry.predicted_high, entry.unit)
    text = f"predicted {predicted}" + (f" ({predicted_range})" if predicted_range else "")
    if entry.observed is None:
        return f"{text}, not observed yet: {entry.reason}" if entry.observed_on is None else f"{text}; {entry.reason}"
    observed_range = numbers.interval(entry.observed_low, entry.observed_high, entry.unit)
    text += f", observed {numbers.quantity(entry.observed, entry.unit)}" + (
        f" ({observed_range})" if observed_range else ""
    )
    text += f" on {entry.observed_on}" if entry.observed_on else ""
    return text + {True: ": they agree", False: ": they differ", None: ""}[entry.covered]


def record(report: Report) -> str:
    """Our own record in one sentence; empty where no prediction has been made."""
    ledger = report.ledger
    if not ledger.predictions:
        return ""
    made = f"{numbers.count(ledger.predictions, 'prediction')} so far"
    waiting = sum(entry.observed is None and entry.observed_on is not None for entry in ledger.entries)
    looked_for = f" {waiting} not seen to have come true on a later version." if waiting else ""
    if not ledger.observed:
        return f"{made}, none observed yet: a later version must show the change first.{looked_for}"
    error = ledger.mean_absolute_percentage_error
    mean = f", {numbers.share(error)} off on average" if error is not None else ""
    return f"{made}, {ledger.observed} observed, {ledger.covered} of them within the predicted range{mean}.{looked_for}"


def told_entries(report: Report) -> tuple[LedgerEntry, ...]:
    """The predictions that a later version has been held against."""
    return tuple(entry for entry in report.ledger.entries if entry.observed_on is not None)

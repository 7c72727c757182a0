"""The report as one HTML file: no script, no request to anywhere, light and dark, for telephones and paper too."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jinja2
from markupsafe import Markup

from hubscope.analytics.model import Report, Trace, Trend, detectable
from hubscope.analytics.render import numbers, outline, plots, waterfall

EMBED_HEIGHT_PX: Final = 720
SPENDERS: Final = 8  # rows of each list of where the time goes
MISSED_CARDS: Final = 6  # two rows of cards; further missed KPIs are lines, so that the advice stays near the top
OPEN_LINES: Final = 12  # with more lines of KPIs than these, each of several services is folded to a summary
_CATEGORIES: Final = ("query", "vector", "plugin", "import", "phase", "other")


@dataclass(frozen=True)
class TraceView:
    trace: Trace
    rows: tuple[waterfall.Row, ...]
    folded: tuple[waterfall.Row, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that occur, for the legend."""
        seen: set[str] = set()
        waiting = [*self.rows, *self.folded]
        while waiting:
            row = waiting.pop()
            seen.add(row.category)
            waiting += row.rows
        return tuple(name for name in _CATEGORIES if name in seen)


@dataclass(frozen=True)
class Level:
    """One bar of a saving: `part`, `low` and `high` are shares of the longest bar."""

    label: str
    css: str
    value: float
    part: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class FindingView:
    """A finding as the template reads it."""

    sentence: str
    detector: str
    service: str
    version: str | None
    cost: str
    worst: str | None  # trace id


def render(report: Report) -> str:
    """The whole document. Everything from telemetry is escaped; the policy in its head forbids every request."""
    told, rest = outline.told_comparisons(report)
    known = outline.judged_kpis(report)
    cards = tuple(kpi for kpi in known if kpi.status == "fail")[:MISSED_CARDS]
    judged = tuple(kpi for kpi in known if kpi.status in ("fail", "pass") and kpi not in cards)
    unjudged_kpis = tuple(kpi for kpi in report.summary.kpis if kpi.status not in ("fail", "pass"))
    kpi_groups = outline.kpi_groups(report, judged)
    items = outline.items(report)
    moving = tuple(trend for trend in report.trends if trend.verdict in ("rising", "falling"))
    css = _css()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            css=Markup(css),
            policy=_policy(css),
            looked_at=outline.scope(report),
            cards=cards,
            kpi_groups=kpi_groups,
            groups_open=len(kpi_groups) == 1 or len(judged) <= OPEN_LINES,
            unjudged_kpis=unjudged_kpis,
            unjudged_groups=outline.kpi_groups(report, unjudged_kpis),
            items=[_item(report, item) for item in items],
            group_title=lambda state: outline.group_title(items, state),
            worst_trace=lambda item: _worst_trace(report, item["source"]),
            levels=lambda item: _levels(item["source"]),
            told=told,
            one_sided=outline.one_sided(report.comparisons, outline.ONE_SIDED),
            rest=rest,
            scale=plots.change_scale(report.comparisons),
            groups=outline.comparison_groups(report),
            spendings=lambda breakdown: outline.spendings(breakdown, SPENDERS),
            record=outline.record(report),
            moving=moving,
            still=tuple(trend for trend in report.trends if trend not in moving),
            unjudged=outline.not_judged(report),
        )
    )


def render_trace(trace: Trace, offenders: Sequence[str] = ()) -> str:
    """One trace as a document of its own; `offenders` are span ids to point out."""
    css = _css()
    view = TraceView(trace, *waterfall.rows(trace, offenders))
    return _environment().get_template("trace.html.j2").render(view=view, css=Markup(css), policy=_policy(css))


def embed_report(report: Report) -> str:
    """The report as a frame for a notebook's output."""
    return _frame(render(report), EMBED_HEIGHT_PX)


def embed_trace(trace: Trace) -> str:
    """A trace as a frame for a notebook's output, as high as its rows need."""
    shown, folded = waterfall.rows(trace)
    return _frame(render_trace(trace), min(EMBED_HEIGHT_PX, 170 + 26 * (len(shown) + bool(folded))))


def _frame(document: str, height_px: int) -> str:
    """A frame of its own: the document's style sheet and the notebook's leave each other alone."""
    frame = '<iframe sandbox srcdoc="{}" width="100%" height="{}" style="border:0" title="hubscope"></iframe>'
    return str(Markup(frame).format(document, height_px))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hubscope.analytics.render", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        quantity=numbers.quantity,
        interval=numbers.interval,
        target=numbers.target,
        change=numbers.change,
        saving_worth=outline.saving_worth,
        share=numbers.share,
        row_label=outline.row_label,
        others_label=outline.others_label,
        breakdown_title=outline.breakdown_title,
        startup_title=outline.startup_title,
        used=outline.used,
        import_label=outline.import_label,
        cut_middle=numbers.cut_middle,
        one_line=lambda text: " ".join(text.split()),
        count=numbers.count,
        moment=numbers.moment,
        metric_name=outline.metric_name,
        observation=outline.observation,
        comparison_title=outline.comparison_title,
        detectable=detectable,
        trend_sentence=outline.trend_sentence,
        trend_plot=_trend_plot,
        kpi_unit=outline.kpi_unit,
        kpi_plot=plots.kpi_plot,
        sparkline=plots.sparkline,
        change_lane=plots.change_lane,
        ledger_lane=plots.ledger_lane,
        meter=plots.meter,
        bars=plots.bars,
        pairs=lambda found: [(bar.start, bar.length) for bar in found],
    )
    return environment


@cache
def _css() -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), "report.css")[0]


def _policy(css: str) -> str:
    """Nothing may be loaded, run or sent; the one style sheet is known by its hash."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _item(report: Report, item: outline.Item) -> dict[str, Any]:
    findings = [
        FindingView(
            finding.sentence,
            finding.detector,
            finding.service,
            finding.version,
            outline.impact(finding),
            finding.evidence[0].trace_id if finding.evidence else None,
        )
        for finding in item.findings
    ]
    return {
        "source": item,
        "recommendation": item.recommendation,
        "findings": findings,
        "severity": item.severity,
        "observed": item.observed,
        "state": item.state,
        "outcome": _outcome(item),
        "why_unpredicted": "" if item.recommendation else outline.why_unpredicted(report, item.findings[0]),
    }


def _outcome(item: outline.Item) -> str:
    """What an item that is no longer open came to, in the few words of its summary line."""
    entry = item.observed
    if item.state == "unconfirmed":
        return "not seen to have come true" if entry else "no change is shown"
    if entry is None or entry.observed is None:
        return "no longer seen"
    observed, predicted = (numbers.quantity(value, entry.unit) for value in (entry.observed, entry.predicted))
    return f"saved {observed}, predicted {predicted}"


def _worst_trace(report: Report, item: outline.Item) -> TraceView | None:
    """The waterfall of the first evidence whose trace the report carries."""
    for finding in item.findings:
        for evidence in finding.evidence:
            trace = report.trace(evidence.trace_id)
            if trace is not None:
                return TraceView(trace, *waterfall.rows(trace, evidence.offender_span_ids))
    return None


def _levels(item: outline.Item) -> list[Level]:
    """Now, after the change as predicted, and as observed once it was."""
    if item.recommendation is None:
        return []
    p = item.recommendation.predicted
    observed_then = None if item.observed is None or item.observed.observed is None else p.now - item.observed.observed
    top = max(abs(p.now), abs(p.then), abs(observed_then or 0.0)) or 1.0
    ends = [None if saved is None else (p.now - saved) / top for saved in (p.high, p.low)]
    levels = [
        Level("now", "now", p.now, p.now / top),
        Level("predicted", "then", p.then, p.then / top, *ends),
    ]
    if observed_then is not None:
        levels.append(Level("observed", "seen", observed_then, observed_then / top))
    return levels


def _trend_plot(trend: Trend) -> Markup:
    unit = trend.unit.partition("/")[0]  # the slope's unit is the values' over time
    label = f"{trend.metric} by run: " + ", ".join(numbers.quantity(v.value, unit) for v in trend.values[-20:])
    return plots.run_plot(trend.values, unit, None, label)

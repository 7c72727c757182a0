"""The report on a terminal: 80 columns, the verdict first, what to do before how it was found."""

from __future__ import annotations

import textwrap

from hubscope.analytics.model import Comparison, Recommendation, Report, StartupTime
from hubscope.analytics.render import numbers, outline

WIDTH = 80
SPENDERS = 5  # rows of each list of where the time goes; HTML and JSON have more
UNJUDGED_SHOWN = 10  # a first run lacks most of what can be measured; the rest stands in every other form
_NOT_PREDICTED = "no prediction can be made from what was measured"
_RESOLVED = "nothing more: a later version no longer shows it"
_MARK = {"pass": "✓", "fail": "✗"}
_STYLE = {
    "fail": "31",
    "worse": "31",
    "critical": "31",
    "high": "33",
    "pass": "32",
    "better": "32",
    "dim": "2",
    "bold": "1",
}


class _Page:
    """Lines under construction; `colour` decides whether styles become escape sequences."""

    def __init__(self, width: int, colour: bool) -> None:
        self.lines: list[str] = []
        self.width = width
        self.colour = colour

    def paint(self, text: str, style: str) -> str:
        code = _STYLE.get(style, "")
        return f"\033[{code}m{text}\033[0m" if self.colour and code else text

    def heading(self, text: str, note: str = "") -> None:
        if self.lines:
            self.lines.append("")
        self.lines.append(self.paint(text, "bold"))
        if note:
            self.wrapped(note, indent="  ")

    def wrapped(self, text: str, first: str = "", indent: str = "", style: str = "") -> None:
        """`text` in as many lines as it needs; the first starts with `first`, the others with `indent`."""
        lines = textwrap.wrap(
            numbers.printable(text),
            self.width,
            initial_indent=first or indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        self.lines += [self.paint(line, style) for line in lines]

    def labelled(self, label: str, text: str, indent: str = "   ") -> None:
        if text:
            self.wrapped(text, first=f"{indent}{label:<11}", indent=indent + " " * 11)


def render(
    report: Report, width: int = WIDTH, colour: bool = False, top: int = outline.TOP_FINDINGS, every: bool = False
) -> str:
    """The whole report as text with a newline at its end; no line is longer than `width` unless a single word is.

    `top` findings are told; `every` lists also the metrics of a comparison that stayed the same or were not judged.
    """
    page = _Page(width, colour)
    worst = "fail" if report.summary.failed else "pass" if report.summary.passed else ""
    page.wrapped(report.summary.verdict, style=worst or "bold")
    page.wrapped(" · ".join(outline.scope(report)), style="dim")
    _kpis(page, report)
    _items(page, report, top)
    _breakdown(page, report)
    _comparisons(page, report, every)
    _ledger(page, report)
    _trends(page, report)
    _checked(page, report)
    return "\n".join(page.lines) + "\n"


def _kpis(page: _Page, report: Report) -> None:
    kpis = outline.judged_kpis(report)
    if not kpis:
        return
    page.heading("KPIs")
    several = len({kpi.service for kpi in kpis}) > 1
    # Services stand in blocks: their names before each KPI's would leave no room for it.
    kpis = tuple(sorted(kpis, key=lambda kpi: kpi.service or "")) if several else kpis
    # 57 columns go to mark, value, target, interval, sparkline, runs and verdict; what is left is the name's.
    name_width = min(max(len(kpi.name) for kpi in kpis), max(page.width - 57, 20))
    service: str | None = None
    for kpi in kpis:
        if several and kpi.service != service:
            service = kpi.service
            page.wrapped(service or "(no name)", indent="  ", style="bold")
        unit = outline.kpi_unit(kpi)
        value = f"{numbers.quantity(kpi.value, unit):>9}"
        limit = f"{numbers.target(kpi.target, unit) if kpi.target else '':<9}"
        bounds = f"{numbers.interval(kpi.low, kpi.high, unit):<17}"
        runs = f"{numbers.sparkline([point.value for point in kpi.points], 6):<6} {kpi.runs:>3}"
        name = numbers.cut_middle(numbers.printable(kpi.name), name_width)
        start = f"{_MARK.get(kpi.status, '·')} {name:<{name_width}} {value} {limit}"
        verdict = kpi.status if kpi.target else ""
        line = next(
            (
                text.rstrip()
                for text in (f"{start} {bounds} {runs} {verdict}", f"{start} {bounds} {verdict}")
                if len(text.rstrip()) <= page.width
            ),
            f"{start} {verdict}".rstrip(),
        )
        page.lines.append(page.paint(line, kpi.status if kpi.status == "fail" else ""))
    page.wrapped("value, target, 95 % interval over runs, each run, number of runs", indent="  ", style="dim")


def _cut(text: str, width: int) -> str:
    text = numbers.printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _items(page: _Page, report: Report, top: int) -> None:
    items = outline.items(report)
    if not items:
        return
    state = ""
    for number, item in enumerate(items[:top], start=1):
        if item.state != state:
            state = item.state
            page.heading(outline.group_title(items, state))
        else:
            page.lines.append("")
        advice = item.recommendation
        first = f"{number}. "
        if advice is not None:
            page.wrapped(advice.change, first=first, indent="   ", style="bold")
            page.labelled("saves", _saving(item))
            page.labelled("where", _where(advice, len(report.services) > 1))
        for finding in item.findings:
            if advice is None:
                page.wrapped(finding.sentence, first=first, indent="   ", style="bold")
                why = outline.why_unpredicted(report, finding)
                unknown = f"{_NOT_PREDICTED}: {why}" if why else _NOT_PREDICTED
                page.labelled(
                    "saves", {"resolved": _RESOLVED, "unconfirmed": outline.NOT_MENDED}.get(item.state, unknown)
                )
            else:
                page.labelled("because", finding.sentence)
            page.labelled("costs", outline.impact(finding))
        if advice is not None:
            page.labelled("how known", advice.predicted.method)
            page.labelled("verify", advice.verify)
        if item.observed is not None:
            page.labelled("since then", outline.observation(item.observed))
        page.labelled("evidence", _evidence(item))
    if len(items) > top:
        page.lines.append("")
        page.wrapped(f"{len(items) - top} more: hubscope report --format html --open", indent="   ", style="dim")


def _breakdown(page: _Page, report: Report) -> None:
    """Where the time goes: per service, at most `SPENDERS` rows a list."""
    if not report.breakdown:
        return
    page.heading("Where the time goes")
    for number, breakdown in enumerate(report.breakdown):
        if number:
            page.lines.append("")
        page.wrapped(outline.breakdown_title(breakdown), indent="  ", style="bold")
        if breakdown.startup is not None:
            _startup(page, outline.shortened_imports(breakdown.startup, SPENDERS))
        for spending in outline.spendings(breakdown, SPENDERS):
            _spending(page, spending)
        if breakdown.startup is None and not breakdown.operations.rows:
            page.wrapped("no start and no operation of it was received", indent="  ", style="dim")


def _startup(page: _Page, startup: StartupTime) -> None:
    page.lines.append("")
    page.wrapped(outline.startup_title(startup), indent="  ")
    width = page.width - 2 - 30
    if startup.phases:
        page.lines.append(page.paint(f"  {'phase':<{width}}{'time':>9}{'share':>8}", "dim"))
        for phase in startup.phases:
            label = _label(phase.phase, width)
            page.lines.append(f"  {label}{numbers.quantity(phase.duration, 's'):>9}{numbers.share(phase.share):>8}")
    if startup.imports:
        page.lines.append(page.paint(f"  {'import':<{width}}{'in all':>9}{'itself':>9}  used early", "dim"))
        for entry in startup.imports:
            own, whole = (numbers.quantity(seconds, "s") for seconds in (entry.self_time, entry.cumulative))
            label = _label(outline.import_label(entry), width)
            page.lines.append(f"  {label}{whole:>9}{own:>9}  {outline.used(entry)}")
        if startup.imports_others:
            label = _label(outline.others_label(startup.imports_others, "package"), width)
            page.lines.append(f"  {label}{'':>9}{numbers.quantity(startup.imports_others_self_time, 's'):>9}")


def _spending(page: _Page, spending: outline.Spending) -> None:
    """One list as a table. The name gives way first, then the percentiles; calls and totals never do."""
    listing = spending.listing
    percentiles = 18 if page.width >= 72 else 0
    width = page.width - 26 - percentiles
    page.lines.append("")

    def line(name: str, calls: str, median: str, p95: str, total: str, part: str) -> str:
        middle = f"{median:>9}{p95:>9}" if percentiles else ""
        return f"  {_label(name, width)}{calls:>8}{middle}{total:>9}{part:>7}"

    page.lines.append(page.paint(line(spending.title, "calls", "median", "p95", "total", "share"), "dim"))
    for row in listing.rows:
        median, p95, total = (numbers.quantity(seconds, "s") for seconds in (row.median, row.p95, row.total))
        names = outline.row_names(row, spending.things)
        label = numbers.cut_pair(names, outline.JOINT, width - 1)
        page.lines.append(line(label, f"{row.calls:,}", median, p95, total, numbers.share(row.share)))
    if listing.others:
        label = outline.others_label(listing.others, spending.things)
        total = numbers.quantity(listing.others_total, "s")
        part = numbers.share(listing.others_total / listing.total if listing.total else 0.0)
        page.lines.append(line(label, f"{listing.others_calls:,}", "", "", total, part))


def _label(text: str, width: int) -> str:
    """`text` as a table's first column: cut in its middle, filled up with spaces."""
    return f"{numbers.cut_middle(numbers.printable(text), width - 1):<{width}}"


def _saving(item: outline.Item) -> str:
    advice = item.recommendation
    if advice is None:
        return ""
    predicted = advice.predicted
    now, then = numbers.quantity(predicted.now, predicted.unit), outline.then(advice)
    text = f"{outline.saving(advice)} of {outline.metric_name(advice)}: {now} → {then}"
    in_all = outline.saving_worth(advice)
    return f"{text}; {in_all}" if in_all else text


def _where(advice: Recommendation, with_service: bool) -> str:
    return f"{advice.service}: {advice.where}" if with_service and advice.service else advice.where


def _evidence(item: outline.Item) -> str:
    trace = next((e.trace_id for finding in item.findings for e in finding.evidence), None)
    severity = f"{item.severity}; " if item.findings else ""
    return f"{severity}hubscope trace {trace}" if trace else severity.rstrip("; ")


def _comparisons(page: _Page, report: Report, every: bool) -> None:
    if not report.comparisons:
        return
    told, rest = outline.told_comparisons(report)
    page.heading("Comparison", outline.comparison_groups(report))
    listed = (*told, *rest) if every else told
    titles = [outline.comparison_title(c) for c in listed]
    width = min(max((len(t) for t in titles), default=0), max(page.width - 47, 24))
    for comparison, title in zip(listed, titles, strict=True):
        page.lines.append(_comparison_line(page, comparison, _cut(title, width), width))
        if every and comparison.verdict == "unknown" and comparison.reason:
            page.wrapped(comparison.reason, indent="    ", style="dim")
    for line in outline.one_sided(report.comparisons, outline.ONE_SIDED):
        page.wrapped(line, first="  ", indent="    ")
    if every:
        return
    same = sum(c.verdict == "same" for c in rest)
    unknown = len(rest) - same
    if same:
        page.wrapped(f"{numbers.count(same, 'metric')} stayed the same.", indent="  ")
    if unknown:
        page.wrapped(f"{numbers.count(unknown, 'metric')} could not be judged:", indent="  ")
        for line in outline.unjudged_comparisons(rest):
            page.wrapped(line, first="  · ", indent="    ")


def _comparison_line(page: _Page, comparison: Comparison, title: str, width: int) -> str:
    before, after = (numbers.quantity(value, comparison.unit) for value in (comparison.before, comparison.after))
    values = f"{before} → {after}"
    bounds = (
        f"({numbers.change(comparison.low)} to {numbers.change(comparison.high)})"
        if comparison.low is not None and comparison.high is not None
        else ""
    )
    line = f"  {title:<{width}} {comparison.verdict:<7} {numbers.change(comparison.change):>7}"
    for more in (values, bounds):
        if len(line) + len(more) + 1 <= page.width:
            line += f" {more}"
    return page.paint(line.rstrip(), comparison.verdict)


def _ledger(page: _Page, report: Report) -> None:
    record = outline.record(report)
    if not record:
        return
    page.heading("Predictions beside what was observed", record)
    for entry in outline.told_entries(report):
        mark = {True: "✓", False: "✗", None: "·"}[entry.covered]
        page.wrapped(f"{entry.change.rstrip('.')}: {outline.observation(entry)}", first=f"{mark} ", indent="  ")


def _trends(page: _Page, report: Report) -> None:
    told = [trend for trend in report.trends if trend.verdict in ("rising", "falling")]
    flat = sum(trend.verdict == "flat" for trend in report.trends)
    unknown = len(report.trends) - len(told) - flat
    if not report.trends:
        return
    page.heading("Trends")
    for trend in told:
        values = numbers.sparkline([v.value for v in trend.values])
        page.wrapped(outline.trend_sentence(trend) + (f"  {values}" if values else ""), first="  ", indent="    ")
    parts = [f"{numbers.count(flat, 'metric')} flat"] if flat else []
    if unknown:
        parts.append(f"{numbers.count(unknown, 'metric')} with too little data to say")
    if parts:
        page.wrapped(", ".join(parts) + ".", indent="  ")


def _checked(page: _Page, report: Report) -> None:
    if report.checked_and_fine:
        page.heading("Checked and fine")
        for entry in report.checked_and_fine:
            page.wrapped(f"{entry.what}: {entry.because}", first="✓ ", indent="  ")
    unjudged = outline.not_judged(report)
    if unjudged:
        page.heading("Could not judge, because")
        for missing in unjudged[:UNJUDGED_SHOWN]:
            page.wrapped(f"{missing.because.rstrip('.')} ({missing.what})", first="· ", indent="  ")
        rest = len(unjudged) - UNJUDGED_SHOWN
        if rest > 0:
            page.wrapped(f"{rest} more, all in hubscope report --open", first="· ", indent="  ", style="dim")

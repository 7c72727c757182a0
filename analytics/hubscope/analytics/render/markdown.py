"""The report as GitHub-flavoured Markdown, made for a comment on a pull request: the verdict, tables, folded detail."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hubscope.analytics.model import Comparison, Report
from hubscope.analytics.render import numbers, outline

_MARK = {"pass": "✅", "fail": "❌", "better": "✅", "worse": "❌", "same": "➖", "unknown": "❔"}
_NOT_PREDICTED = "No saving can be predicted from what was measured."
SPENDERS = 3  # rows of each list of where the time goes
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render(report: Report, top: int = outline.TOP_FINDINGS) -> str:
    """The report as Markdown with a newline at its end; text from telemetry is escaped."""
    parts = [
        f"## {_text(report.summary.verdict)}",
        " · ".join(_text(part) for part in outline.scope(report)),
        _kpis(report),
        _items(report, top),
        _breakdown(report),
        _comparisons(report),
        _ledger(report),
        _trends(report),
        _checked(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(value: object) -> str:
    """`value` as plain text: one line, nothing of it read as Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _sentence(value: str) -> str:
    """`value` as plain text that begins and ends as a sentence does."""
    text = _text(value)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _code(value: object) -> str:
    """`value` as code; a fence longer than any run of backticks inside."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(' --- ' for _ in head)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _kpis(report: Report) -> str:
    kpis = outline.judged_kpis(report)
    several = len({kpi.service for kpi in kpis}) > 1
    service = ("service",) if several else ()
    rows = [
        (
            *((_code(kpi.service or "(no name)"),) if several else ()),
            _MARK.get(kpi.status, "") if kpi.target else "",
            _code(kpi.name),
            numbers.quantity(kpi.value, outline.kpi_unit(kpi)),
            _text(numbers.target(kpi.target, outline.kpi_unit(kpi))),
            numbers.interval(kpi.low, kpi.high, outline.kpi_unit(kpi)),
            str(kpi.runs),
        )
        for kpi in (sorted(kpis, key=lambda kpi: kpi.service or "") if several else kpis)
    ]
    return _table((*service, "", "KPI", "value", "target", "95 % interval", "runs"), rows) if rows else ""


def _items(report: Report, top: int) -> str:
    blocks = []
    items = outline.items(report)
    state = ""
    for number, item in enumerate(items[:top], start=1):
        if item.state != state:
            state = item.state
            blocks.append(f"### {_text(outline.group_title(items, state))}")
        advice = item.recommendation
        findings = [f"{_text(finding.sentence)}" for finding in item.findings]
        if advice is None:
            why = outline.why_unpredicted(report, item.findings[0])
            unknown = f"{_NOT_PREDICTED[:-1]}: {_text(why)}." if why else _NOT_PREDICTED
            rest = {
                "resolved": "A later version no longer shows it.",
                "unconfirmed": _sentence(outline.NOT_MENDED),
            }.get(state, unknown)
            blocks.append(f"{number}. **{findings[0]}** {rest}")
            continue
        predicted = advice.predicted
        now, then = numbers.quantity(predicted.now, predicted.unit), outline.then(advice)
        lines = [
            f"{number}. **{_text(advice.change)}** ({_code(advice.where)})",
            f"saves {outline.saving(advice)} of {_code(outline.metric_name(advice))}: {now} → {then}"
            + (f"; {in_all}" if (in_all := outline.saving_worth(advice)) else ""),
            *findings,
            f"<sub>{_sentence(predicted.method)} To check: {_sentence(advice.verify)}</sub>",
        ]
        if item.observed is not None:
            lines.append(f"Since then: {_text(outline.observation(item.observed))}")
        blocks.append("<br>\n   ".join(lines))
    if len(items) > top:
        blocks.append(f"{len(items) - top} more in the HTML report.")
    return "\n\n".join(blocks)


def _breakdown(report: Report) -> str:
    """Where the time goes: one folded block a service, the dearest few of each list."""
    blocks = []
    for breakdown in report.breakdown:
        parts = []
        if breakdown.startup is not None:
            startup = outline.shortened_imports(breakdown.startup, SPENDERS)
            imports = [
                (
                    _code(outline.import_label(i)),
                    numbers.quantity(i.cumulative, "s"),
                    numbers.quantity(i.self_time, "s"),
                    outline.used(i),
                )
                for i in startup.imports
            ]
            if startup.imports_others:
                rest = numbers.quantity(startup.imports_others_self_time, "s")
                imports.append((outline.others_label(startup.imports_others, "package"), "", rest, ""))
            phases = ", ".join(f"{_text(p.phase)} {numbers.quantity(p.duration, 's')}" for p in startup.phases)
            parts.append(_text(outline.startup_title(startup)) + (f"; phases: {phases}" if phases else ""))
            if imports:
                parts.append(_table(("import", "in all", "itself", "used before interactive"), imports))
        for spending in outline.spendings(breakdown, SPENDERS):
            rows = [
                (
                    _code(outline.row_label(row, spending.things)),
                    f"{row.calls:,}",
                    *(numbers.quantity(seconds, "s") for seconds in (row.median, row.p95, row.total)),
                    numbers.share(row.share),
                )
                for row in spending.listing.rows
            ]
            if spending.listing.others:
                label = outline.others_label(spending.listing.others, spending.things)
                total = numbers.quantity(spending.listing.others_total, "s")
                rows.append((label, f"{spending.listing.others_calls:,}", "", "", total, ""))
            parts.append(_table((spending.title, "calls", "median", "p95", "total", "share"), rows))
        if parts:
            blocks.append(_folded(_text(outline.breakdown_title(breakdown)), "\n\n".join(parts)))
    return "\n\n".join(["### Where the time goes", *blocks]) if blocks else ""


def _comparisons(report: Report) -> str:
    if not report.comparisons:
        return ""
    told, rest = outline.told_comparisons(report)
    head = ("", "metric", "before", "after", "change", "95 % interval")

    def rows(comparisons: tuple[Comparison, ...]) -> list[tuple[str, ...]]:
        return [
            (
                _MARK[c.verdict],
                _code(outline.comparison_title(c)),
                numbers.quantity(c.before, c.unit),
                numbers.quantity(c.after, c.unit),
                numbers.change(c.change),
                f"{numbers.change(c.low)} to {numbers.change(c.high)}" if c.low is not None else _text(c.reason),
            )
            for c in comparisons
        ]

    parts = [f"### Comparison: {_text(outline.comparison_groups(report))}"]
    parts.append(_table(head, rows(told)) if told else "Nothing became better or worse.")
    parts += [_sentence(line) for line in outline.one_sided(report.comparisons, outline.ONE_SIDED)]
    if rest:
        parts.append(_folded(f"{numbers.count(len(rest), 'metric')} the same or not judged", _table(head, rows(rest))))
    return "\n\n".join(parts)


def _ledger(report: Report) -> str:
    record = outline.record(report)
    if not record:
        return ""
    lines = [
        f"- {_text(entry.change.rstrip('.'))}: {_text(outline.observation(entry))}"
        for entry in outline.told_entries(report)
    ]
    return "\n\n".join(part for part in ("### Predictions beside what was observed", record, "\n".join(lines)) if part)


def _trends(report: Report) -> str:
    told = [trend for trend in report.trends if trend.verdict in ("rising", "falling")]
    if not told:
        return ""
    return "### Trends\n\n" + "\n".join(f"- {_text(outline.trend_sentence(trend))}" for trend in told)


def _checked(report: Report) -> str:
    parts = []
    if report.checked_and_fine:
        lines = "\n".join(f"- {_text(c.what)}: {_text(c.because)}" for c in report.checked_and_fine)
        parts.append(_folded(f"Checked and fine ({len(report.checked_and_fine)})", lines))
    unjudged = outline.not_judged(report)
    if unjudged:
        lines = "\n".join(f"- {_text(n.because)} ({_text(n.what)})" for n in unjudged)
        parts.append(_folded(f"Could not judge ({len(unjudged)})", lines))
    return "\n\n".join(parts)

"""The HTML report: one file, nothing loaded, everything escaped, long traces folded."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from hubscope.analytics import model
from hubscope.analytics.render import html, plots, waterfall

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags and checks that every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def page(report: model.Report) -> Page:
    return Page(html.render(report))


def test_nothing_is_loaded_from_anywhere(report: model.Report, page: Page) -> None:
    """No script, no style attribute, no address of another file; the policy allows the one style sheet by its hash."""
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe", "object", "embed", "base")]
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
        assert (attributes.get("href") or "#").startswith("#")
    text = html.render(report)
    css = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert css is not None
    assert "url(" not in css[1]
    assert "@import" not in css[1]
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy


def test_telemetry_is_escaped(report: model.Report) -> None:
    """A span name with a script in it is text on the page."""
    text = html.render(report)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_everything_is_there(report: model.Report, page: Page) -> None:
    """The verdict comes first, then every KPI, finding, comparison, prediction and reason."""
    words = " ".join(" ".join(page.words).split())
    assert next(t for t, _ in page.tags if t in ("h1", "h2")) == "h1"
    for expected in (
        report.summary.verdict,
        *(kpi.name for kpi in report.summary.kpis),
        *(advice.change for advice in report.recommendations),
        *(finding.sentence for finding in report.bottlenecks),
        *(advice.predicted.method for advice in report.recommendations),
        *(entry.because for entry in report.checked_and_fine),
        *(entry.because for entry in report.could_not_judge),
        "not as predicted",
        "60 × SELECT tags",
    ):
        assert " ".join(expected.split()) in words


def test_plots_are_named_for_those_who_cannot_see_them(page: Page) -> None:
    """Every plot has an aria-label or is hidden, and every section a heading that names it."""
    for tag, attributes in page.tags:
        if tag == "svg" and "aria-hidden" not in attributes and attributes.get("class") != "ruler":
            assert attributes.get("role") == "img"
            assert attributes.get("aria-label")
    ids = {attributes.get("id") for _, attributes in page.tags}
    for tag, attributes in page.tags:
        if tag == "section" and attributes.get("aria-labelledby"):
            assert attributes["aria-labelledby"] in ids
        if tag == "a":
            assert (attributes["href"] or "")[1:] in ids


def _section(text: str, name: str) -> str:
    return text.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def test_kpis_are_missed_cards_then_lines_then_what_has_no_verdict(report: model.Report) -> None:
    """A missed KPI is a card, a met one a line, the rest lies folded with its reason; each has its plot or none."""
    kpis = _section(html.render(report), "kpis")
    cards, _, lines = kpis.partition('<div class="card klines">')
    lines, _, folded = lines.partition('<details class="card fold-card">')
    assert cards.count('<article class="card kpi">') == report.summary.failed
    for kpi in report.summary.kpis:
        where = {"fail": cards, "pass": lines}.get(kpi.status, folded)
        assert kpi.name in where
        if kpi.status == "unknown":
            assert kpi.reason in folded
    measured = [kpi for kpi in report.summary.kpis if kpi.points]
    assert kpis.count('class="plot"') == len(measured)
    assert kpis.count('class="spark"') == len([kpi for kpi in measured if kpi.status != "fail"])


def test_many_services_stay_readable(report: model.Report) -> None:
    """With more met KPIs than a screen holds, each service is folded to one line that says how it fares."""
    services = tuple(f"service-{i:02d}" for i in range(12))
    summary = dataclasses.replace(
        report.summary,
        kpis=tuple(dataclasses.replace(kpi, service=name) for name in services for kpi in report.summary.kpis),
    )
    kpis = _section(html.render(dataclasses.replace(report, services=services, summary=summary)), "kpis")
    assert kpis.count('<article class="card kpi">') == html.MISSED_CARDS
    assert kpis.count('<details class="kgroup">') == len(services)
    missed, met = (sum(k.status == status for k in report.summary.kpis) for status in ("fail", "pass"))
    assert f"{missed} missed, {met} met" in kpis
    assert kpis.count(f"{missed} missed, {met} met") == len(services) - html.MISSED_CARDS // missed
    Page(kpis)
    alone = dataclasses.replace(report.summary, kpis=report.summary.kpis * 5)
    kpis = _section(html.render(dataclasses.replace(report, summary=alone)), "kpis")
    assert 'class="kgroup"' not in kpis, "one service has nothing to be folded beside"


def test_what_is_mended_is_calm_and_last(report: model.Report) -> None:
    """Resolved findings stand folded under their own heading, saving beside prediction; no open one stands there."""
    findings = _section(html.render(report), "findings")
    still_open, _, mended = findings.partition("Mended since version 1")
    for finding in report.bottlenecks:
        text = " ".join(str(finding.sentence).replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;").split())
        assert text in (mended if finding.status == "resolved" else still_open)
        assert text not in (still_open if finding.status == "resolved" else mended)
    assert "saved 610 ms, predicted 520 ms" in mended
    assert "not as predicted" in mended
    assert "<details open" not in mended
    assert mended.count("</article>") == 0


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_bars_stand_out_in_light_and_dark(report: model.Report) -> None:
    """WCAG 2.1 AA: text at least 4.5 to 1 on each ground it stands on (1.4.3), bars 3 to 1 on a card (1.4.11)."""
    schemes = re.findall(r":root \{(.*?)\}", html.render(report).partition("@media print")[0], re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        pairs = [(t, g) for t in ("ink", "soft", "accent", "good", "bad", "warn") for g in ("page", "card", "wash")]
        pairs += [(t, f"{t}-wash") for t in ("good", "bad", "warn")]
        assert [(t, g) for t, g in pairs if _contrast(colour[t], colour[g]) < 4.5] == []
        bars = ("query", "vector", "plugin", "import", "phase", "other")
        assert [bar for bar in bars if _contrast(colour[bar], colour["card"]) < 3] == []


def test_the_critical_path_is_told_without_colour(report: model.Report) -> None:
    """It is a thin line of its own below a span's bar, and said aloud where the bar is described."""
    text = html.render_trace(report.traces[0])
    rows = re.findall(r'<svg class="lane" role="img" aria-label="([^"]*)">(.*?)</svg>', text, re.DOTALL)
    assert rows
    assert {", on the critical path" in label for label, _ in rows} == {True, False}
    for label, drawn in rows:
        heights = {(float(y), float(h)) for y, h in re.findall(r'<rect [^>]*y="([\d.]+)" height="([\d.]+)"', drawn)}
        assert len(heights) == (2 if ", on the critical path" in label else 1)


def test_an_empty_report_is_a_page(empty_report: model.Report) -> None:
    """With nothing to show there is the verdict alone."""
    page = Page(html.render(empty_report))
    assert "There is nothing to judge yet" in " ".join(page.words)
    assert "section" not in {tag for tag, _ in page.tags}


def test_objects_show_themselves_in_a_notebook(report: model.Report) -> None:
    """Report and trace give HTML to a notebook."""
    assert report.summary.verdict in report._repr_html_()
    assert report.traces[0].trace_id in report.traces[0]._repr_html_()


def _long_trace(trace: model.Trace, names: list[str], parents: list[int]) -> model.Trace:
    """A trace of spans 0… with these names and parents (-1 is the root), one microsecond each."""
    first = trace.spans[0]
    spans = []
    for i, (name, parent) in enumerate(zip(names, parents, strict=True)):
        spans.append(
            dataclasses.replace(
                first,
                span_id=f"{i:016x}",
                parent_span_id="" if parent < 0 else f"{parent:016x}",
                name=name,
                start_unix_nano=first.start_unix_nano + i * 1000,
                end_unix_nano=first.start_unix_nano + i * 1000 + 1000,
            )
        )
    return dataclasses.replace(trace, spans=tuple(spans), root=spans[0].span_id, critical_path=(), spans_left_out=0)


def _all_rows(rows: Any) -> int:
    return sum(1 + _all_rows(row.rows) for row in rows)


def test_a_long_trace_folds(report: model.Report) -> None:
    """Five thousand spans of one name become one row; a thousand different ones show the first forty."""
    alike = _long_trace(report.traces[0], ["root"] + ["SELECT x"] * 5000, [-1] + [0] * 5000)
    shown, folded = waterfall.rows(alike)
    assert [row.count for row in shown] == [1, 5000]
    assert folded == ()
    assert len(shown[1].rows) == waterfall.ROWS_PER_GROUP
    assert shown[1].hidden == 5000 - waterfall.ROWS_PER_GROUP
    assert len(shown[1].bars) <= waterfall.BARS_PER_LANE
    different = _long_trace(report.traces[0], [f"s{i}" for i in range(1000)], [-1] + [0] * 999)
    shown, folded = waterfall.rows(different)
    assert (len(shown), len(folded)) == (waterfall.VISIBLE_ROWS, 1000 - waterfall.VISIBLE_ROWS)
    assert len(html.render_trace(alike)) < 200_000
    slow = dataclasses.replace(different.spans[900], end_unix_nano=different.spans[900].end_unix_nano + 5000)
    mixed = dataclasses.replace(different, spans=(*different.spans[:900], slow, *different.spans[901:]))
    offender = different.spans[950]
    shown, folded = waterfall.rows(mixed, [offender.span_id])
    assert [row.name for row in shown[-2:]] == [slow.name, offender.name], "the longest and the offenders are shown"


def test_a_deep_trace_does_not_recurse(report: model.Report) -> None:
    """Three thousand spans, each inside the one before, are listed in order."""
    deep = _long_trace(report.traces[0], [f"s{i}" for i in range(3000)], list(range(-1, 2999)))
    shown, folded = waterfall.rows(deep)
    assert _all_rows((*shown, *folded)) == 3000
    assert shown[-1].depth == waterfall.MAX_DEPTH


def test_a_broken_trace_is_drawn(report: model.Report) -> None:
    """A missing root, a missing parent and spans outside the root's time are drawn, not refused."""
    trace = report.traces[0]
    orphans = dataclasses.replace(trace, spans=trace.spans[1:], root="f" * 16, critical_path=())
    shown, _ = waterfall.rows(orphans)
    assert len(shown) == len(trace.spans) - 1
    assert all(0 <= bar.start <= 1 and 0 <= bar.length <= 1 for row in shown for bar in row.bars)
    assert waterfall.rows(dataclasses.replace(trace, spans=(), critical_path=())) == ((), ())


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.437), (0, 1234), (-3, 5), (2, 2), (0, 1e-9), (0, 0)])
def test_ticks_cover_the_values(low: float, high: float) -> None:
    """The axis begins at or below the lowest value, ends at or above the highest, and has a handful of ticks."""
    ticks = plots.nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high * 0.999999
    assert 2 <= len(ticks) <= 7


def test_counted_things_are_not_named_at_each_tick(report: model.Report) -> None:
    """Beside an axis there is no room for `15 plugins`: the number alone stands there."""
    kpi = dataclasses.replace(report.summary.kpis[0], name="scale.plugins", unit="{plugin}", target=">= 1000")
    drawn = str(plots.kpi_plot(kpi))
    assert "plugin" not in "".join(re.findall(r"<text[^>]*>([^<]*)", drawn))
    assert "plugins" in drawn


def test_bytes_are_ticked_in_round_mebibytes() -> None:
    """What is written in MiB is round in MiB."""
    from hubscope.analytics.render import numbers

    ticks = plots.unit_ticks(0, 170 * 2**20, "By")
    assert [numbers.quantity(tick, "By") for tick in ticks[1:]] == ["100 MiB", "200 MiB"]

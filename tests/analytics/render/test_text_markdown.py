"""The report as text and as Markdown, against files that a person can read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hubscope.analytics import model
from hubscope.analytics.render import markdown, outline, text, trace_text

Golden = Callable[[str, str], None]


def test_text_is_the_golden_file(report: model.Report, golden: Golden) -> None:
    """The whole report, as a terminal shows it."""
    golden("report.txt", text.render(report))


def test_a_sentence_ends_before_the_next_begins() -> None:
    """How a saving was computed and how to check it are two sentences, whether or not the method ends with a stop."""
    assert markdown._sentence("scaled by that ratio") == "Scaled by that ratio."
    assert markdown._sentence("It is known.") == "It is known."


def test_markdown_is_the_golden_file(report: model.Report, golden: Golden) -> None:
    """The whole report, as a pull request shows it."""
    golden("report.md", markdown.render(report))


def test_trace_is_the_golden_file(report: model.Report, golden: Golden) -> None:
    """One trace as a tree, repeated siblings on one line."""
    golden("trace.txt", trace_text.render(report.traces[1]))


def test_eighty_columns(report: model.Report) -> None:
    """No line is wider than asked, and the verdict is the first."""
    for width in (80, 60):
        lines = text.render(report, width=width).splitlines()
        assert max(len(line) for line in lines) <= width
    assert text.render(report).startswith(report.summary.verdict[:40])


def test_an_empty_report_says_so(empty_report: model.Report, golden: Golden) -> None:
    """With nothing to show there is the verdict, and no empty heading."""
    golden("empty.txt", text.render(empty_report))
    golden("empty.md", markdown.render(empty_report))


def test_colour_is_asked_for(report: model.Report) -> None:
    """Escape sequences appear only with colour, and taking them out gives the same text."""
    import re

    assert "\033" not in text.render(report)
    coloured = text.render(report, colour=True)
    assert re.sub(r"\033\[\d*m", "", coloured) == text.render(report)


def test_markdown_from_telemetry_stays_text(report: model.Report) -> None:
    """Names with Markdown or HTML in them are shown as they are, and no table row is broken by a pipe."""
    nasty = dataclasses.replace(report.bottlenecks[1], sentence="a | b <img src=x> [x](http://evil) `c`\nd")
    rendered = markdown.render(dataclasses.replace(report, bottlenecks=(*report.bottlenecks[2:], nasty)))
    assert "a \\| b \\<img src=x\\> \\[x\\](http://evil) \\`c\\` d" in rendered


def test_what_is_mended_stands_below_what_is_open(report: model.Report) -> None:
    """Resolved findings have their own heading after the open ones, with the version when all have the same."""
    for rendered in (text.render(report), markdown.render(report)):
        titles = ("What to change", "Index memories(", "over the 10 %", "Mended since version 1", "Fetch the tags")
        places = [rendered.replace("\\", "").index(title) for title in titles]
        assert places == sorted(places)
    two = dataclasses.replace(report.bottlenecks[2], version="0")
    mixed = dataclasses.replace(report, bottlenecks=(*report.bottlenecks[:2], two, report.bottlenecks[3]))
    assert "Mended in a later version" in text.render(mixed)
    mended = dataclasses.replace(report, bottlenecks=report.bottlenecks[2:], recommendations=report.recommendations[1:])
    assert "What to change" not in text.render(mended)


def test_what_has_no_value_is_never_zero(report: model.Report) -> None:
    """A KPI that nothing feeds stands under "could not judge" with its reason, and nowhere as 0."""
    rendered = text.render(report)
    unjudged = rendered.partition("Could not judge")[2]
    assert "nothing reports hub.plugins.installed (plugins.installed)" in unjudged
    assert "plugins.installed" not in rendered.partition("Could not judge")[0]


def test_metrics_that_could_not_be_judged_for_one_reason_are_one_line() -> None:
    """A dozen that differ only in what their runs would show give one line with the least and the most of it; where
    that is more than 1,000 % it is no figure; JSON keeps each number."""
    effects = (0.12, 0.9, 0.31, 1149.28, 20.0)
    unknown = [
        model.Comparison(
            *("root.duration", {"operation": f"task {n}"}, 1.0, 1.1, 0.1, -0.5, 0.7, "unknown", effect, 4, 4, "s"),
            f"not certain at 5%; {model.detectable(effect)}",
        )
        for n, effect in enumerate(effects)
    ]
    (line,) = outline.unjudged_comparisons(unknown)
    assert line.startswith("5 metrics (root.duration · task 0, ")
    assert line.endswith("not certain at 5%; these runs would show 12% to 90% and more, and no change of 2 of them")
    (coarse,) = outline.unjudged_comparisons(unknown[3:])
    assert coarse.endswith(": not certain at 5%; these runs are too few or too uneven to show a change")
    assert [c.to_dict()["minimum_detectable_effect"] for c in unknown] == list(effects)

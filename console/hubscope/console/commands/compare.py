"""`hubscope compare`: two versions, or two groups of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hubscope.console import output, terminal
from hubscope.console.commands import report
from hubscope.console.commands.report import FORMATS
from hubscope.console.options import check_window, example, lake_option, window_options

if TYPE_CHECKING:
    from hubscope.analytics.model import Comparison


@click.command(
    "compare",
    epilog=example(
        "hubscope compare 1.4.0 1.5.0",
        "hubscope compare --by instance 8f3c,a21b 90de,77f0",
        "hubscope compare 1.4.0 1.5.0 --format markdown",
    ),
)
@click.argument("before")
@click.argument("after")
@click.option(
    "--by",
    type=click.Choice(("version", "instance")),
    default="version",
    show_default=True,
    help="What BEFORE and AFTER name: versions (service.version), or runs (service.instance.id, comma-separated).",
)
@lake_option
@click.option("--service", metavar="NAME", help="Only this service (service.name).")
@window_options
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to write it."
)
@click.option("--output", "-o", "path", type=click.Path(dir_okay=False), help="Write to this file, not to stdout.")
def command(
    before: str,
    after: str,
    by: str,
    lake: str,
    service: str | None,
    since: datetime | None,
    until: datetime | None,
    form: str,
    path: str | None,
) -> None:
    """Compares two versions, or two groups of runs: what became better or worse, by how much, and how sure that is.

    The unit is the run. Too few runs give "unknown", not a guess, with the smallest change that would have been seen.
    """
    check_window(since, until)
    from hubscope.analytics import compare

    with terminal.working("comparing"):
        found = compare(lake, before, after, by=by, service=service, since=since, until=until)
    output.write(render(lake, found, form, colour=path is None and terminal.colour_wanted()), path)


def render(lake: str, comparisons: Sequence[Comparison], form: str, colour: bool = False) -> str:
    """The comparison in one of `FORMATS`, ending in a newline. It is drawn as a report that holds nothing else."""
    from hubscope.analytics import model
    from hubscope.analytics.render import outline

    if form == "json":
        return json.dumps({"comparisons": [c.to_dict() for c in comparisons]}, indent=2, ensure_ascii=False) + "\n"
    whole = model.Report(
        schema_version=model.SCHEMA_VERSION,
        generated_at=datetime.now(UTC).isoformat(),
        window=model.Window(None, None),
        services=(),
        summary=model.Summary(outline.comparison_verdict(comparisons), 0, 0, 0, ()),
        trends=(),
        bottlenecks=(),
        recommendations=(),
        comparisons=tuple(comparisons),
        ledger=model.Ledger(0, 0, 0, None),
        checked_and_fine=(),
        could_not_judge=(),
        lake=lake,
    )
    return report.render(whole, form, colour=colour, every=True)

"""`hubscope compare`: two versions, or two groups of runs."""

from __future__ import annotations

import click

from hubscope.console import output, terminal
from hubscope.console.commands.report import FORMATS, render
from hubscope.console.options import example, lake_option


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
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to write it."
)
@click.option("--output", "-o", "path", type=click.Path(dir_okay=False), help="Write to this file, not to stdout.")
def command(before: str, after: str, by: str, lake: str, service: str | None, form: str, path: str | None) -> None:
    """Compares two versions, or two groups of runs: what became better or worse, by how much, and how sure that is.

    The unit is the run. Too few runs give "unknown", not a guess, with the smallest change that would have been seen.
    """
    from hubscope.analytics import compare

    with terminal.working("comparing"):
        found = compare(lake, before, after, by=by, service=service)
    output.write(render(found, form, colour=path is None and terminal.colour_wanted()), path)

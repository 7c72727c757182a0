"""`hubscope demo`: real applications under load, and a real report, in about a minute."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from hubscope.console import output, terminal
from hubscope.console.commands.report import FORMATS, deliver, render
from hubscope.console.demo import children, place, runs
from hubscope.console.demo.place import Place
from hubscope.console.demo.runs import Size
from hubscope.console.demo.steps import Steps, steps
from hubscope.console.options import example

DATASETTE_RUNS = 2


@click.command(
    "demo",
    epilog=example("hubscope demo", "hubscope demo --keep ./hubscope-demo --open", "hubscope demo --runs 6"),
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Work in this new folder and leave all there: lake, logs, the hub's databases.  [default: your cache folder]",
)
@click.option(
    "--runs",
    "count",
    type=click.IntRange(3, 50),
    default=4,
    show_default=True,
    help="Runs of each version of the hub. Three are the fewest that can be called better or worse.",
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to write it."
)
@click.option("--output", "-o", "path", type=click.Path(dir_okay=False), help="Write to this file instead of stdout.")
@click.option("--open", "open_", is_flag=True, help="Open the HTML report in the browser, too.")
def command(keep: Path | None, count: int, form: str, path: str | None, open_: bool) -> None:
    """Runs Datasette over 234,908 real cities, and a small AI hub whose memories are the docstrings of the packages
    installed here: version 1 with five known inefficiencies, version 2 without, in turn. Then reports what it found,
    what it predicted on version 1, and what version 2 showed.

    Uses a collector, ports and a lake of its own; yours are not touched. The first demo prepares its data (15 s more).
    """
    place.check_extras()
    with children.terminated_like_interrupted(), place.prepare(keep) as here:
        # 1 for the data, 1 for the collector, 2 reports.
        with steps(4 + DATASETTE_RUNS + 2 * count) as shown:
            shown.say(f"the demo works in {here.run}")
            html = _run(here, shown, count, Size(), form, path)
        terminal.say(f"the report with its plots: {html}")
        terminal.say(f"more of the same data: hubscope report --lake {here.lake} (or sql, trace, compare, notebook)")
    if open_:
        import webbrowser

        if not webbrowser.open(html.as_uri()):
            terminal.say("no browser could be started; open the file by hand")


def order(count: int) -> tuple[str, ...]:
    """The versions in the order of their runs: in turn, so that a machine that warms up or slows down favours neither.

    Version 1 comes twice first: its predictions are recorded before anything of version 2 exists.
    """
    return ("1", "1", *("2", "1") * (count - 2), "2", "2")


def _run(here: Place, shown: Steps, count: int, size: Size, form: str, path: str | None) -> Path:
    """All steps; returns the path of the HTML report. The report itself goes to stdout, or to `path`."""
    from hubscope.analytics import report

    rules = str(here.rules)  # the hub's own quota: the collector judges by it, and the report
    with shown.step("data prepared") as note:
        note(runs.prepare(here, size))
    databases = (here.hub_data("1") / "memories.db", here.prepared / "cities" / "cities.db")
    with ExitStack() as stack:
        with shown.step("collector started") as note:
            to = stack.enter_context(runs.collector(here, rules))
            note(to.endpoint)
        for number in range(1, DATASETTE_RUNS + 1):
            with shown.step(f"Datasette, run {number} of {DATASETTE_RUNS}") as note:
                done = runs.run_datasette(here, to, size, number)
                note(f"{done.requests} requests in {done.seconds:.1f} s")
        had = dict.fromkeys(runs.VERSIONS, 0)
        for position, version in enumerate(order(count)):
            had[version] += 1
            with shown.step(f"hub version {version}, run {had[version]} of {count}") as note:
                done = runs.run_hub(here, to, size, version, had[version])
                note(f"{done.requests} tasks in {done.seconds:.1f} s")
            if position == 1:
                with shown.step("predictions made on version 1") as note:
                    first = report(str(here.lake), databases=databases, rules=rules)
                    note(f"{first.ledger.predictions}, kept in {here.lake / 'ledger.jsonl'}")
        with shown.step("report"):
            found = report(str(here.lake), databases=databases, rules=rules)
            html = here.run / "report.html"
            output.write(render(found, "html"), str(html))
    shown.say(f"{shown.total_s:6.1f} s  in all")
    deliver(found, form, path, False)
    return html

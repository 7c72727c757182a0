"""`hubscope report`: the verdict, what to change, what it would save."""

from __future__ import annotations

import webbrowser
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubscope.console import output, terminal
from hubscope.console.options import check_window, example, lake_option, window_options
from hubscope.errors import ConfigError

if TYPE_CHECKING:
    from hubscope.analytics.model import Report

_SQLITE = b"SQLite format 3\0"  # how each such file begins: https://www.sqlite.org/fileformat.html
FORMATS = ("text", "html", "json", "markdown")


@click.command(
    "report",
    epilog=example(
        "hubscope report",
        "hubscope report --service datasette --since 24h",
        "hubscope report --format html --output report.html --open",
        "hubscope report --format json | jq .summary.verdict",
    ),
)
@lake_option
@click.option("--service", metavar="NAME", help="Only this service (service.name).")
@window_options
@click.option("--format", "format_", type=click.Choice(FORMATS), help="How to write it.  [default: text]")
@click.option("--output", "-o", "path", type=click.Path(dir_okay=False), help="Write to this file instead of stdout.")
@click.option("--open", "open_", is_flag=True, help="Open the HTML report in the browser; implies --format html.")
@click.option(
    "--database",
    "databases",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A SQLite file of the application: indexes are tried on a copy of it. May be repeated.",
)
def command(
    lake: str,
    service: str | None,
    since: datetime | None,
    until: datetime | None,
    format_: str | None,
    path: str | None,
    open_: bool,
    databases: tuple[Path, ...],
) -> None:
    """What is slow, which phase, query, search or plugin is to blame, what to do about it, and what that would save.

    Reads the lake only; a collector may go on writing meanwhile.
    """
    check_window(since, until)
    if open_ and format_ not in (None, "html"):
        raise click.UsageError(f"--open shows the HTML report in a browser; it does not go with --format {format_}.")
    for database in databases:
        _check_sqlite(database)
    form = format_ or ("html" if open_ else "text")
    from hubscope.analytics import report

    with terminal.working("reading the lake and judging"):
        found = report(lake, service=service, since=since, until=until, databases=databases)
    deliver(found, form, path, open_)
    if not found.runs and since is until is None and service is None:
        terminal.say(f"the lake {lake} holds no spans and no metrics yet: `hubscope run -- CMD` fills it")


def _check_sqlite(path: Path) -> None:
    """Raises ConfigError for a file that SQLite cannot open. An empty one is an empty database."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise ConfigError(
            f"--database {path} cannot be read: {error.strerror or error}", "name another file"
        ) from error
    if start not in (_SQLITE, b""):
        raise ConfigError(
            f"--database {path} is no SQLite database", "name the application's SQLite file, or leave --database out"
        )


def deliver(report: Report, form: str, path: str | None, open_: bool) -> None:
    """Writes the report in one of `FORMATS`; with `open_` into a file that the browser is sent to."""
    if open_ and path is None:
        path = str(_report_file())
    to_terminal = path is None and form == "text"
    output.write(render(report, form, colour=to_terminal and terminal.colour_wanted()), path)
    if path is not None and path != "-":
        terminal.say(f"the report is in {path}")
    if open_ and path is not None and not webbrowser.open(Path(path).absolute().as_uri()):
        terminal.say("no browser could be started; open the file by hand")


def render(report: Report, form: str, colour: bool = False, every: bool = False) -> str:
    """The report as text, ending in a newline; `every` names each compared metric on the terminal."""
    if form == "json":
        return report.to_json() + "\n"
    if form == "html":
        from hubscope.analytics.render import html

        return html.render(report) + "\n"
    if form == "markdown":
        from hubscope.analytics.render import markdown

        return markdown.render(report)
    from hubscope.analytics.render import text

    return text.render(report, width=terminal.text_width(), colour=colour, every=every)


def _report_file() -> Path:
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("hubscope", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "report.html"

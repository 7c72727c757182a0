"""What a terminal gets and a pipe does not: colour, a width of its own, and a sign that something is being done."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

TEXT_WIDTH = 80
NARROWEST = 60  # below this the tables of the report no longer hold their columns


def colour_wanted() -> bool:
    """Colour on stdout: only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def text_width() -> int:
    """Columns for prose and tables: 80, or fewer where the terminal has fewer."""
    if not sys.stdout.isatty():
        return TEXT_WIDTH
    return max(NARROWEST, min(TEXT_WIDTH, shutil.get_terminal_size().columns))


def say(text: str) -> None:
    """A line of talk, on stderr: data alone goes to stdout."""
    click.echo(text, err=True)


def can_redraw() -> bool:
    """Whether stderr is a terminal on which a line can be drawn over."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal's stderr that `what` is being done, with the seconds it has taken; silent elsewhere.

    Yields a function that changes the text. Without the `console` extra (rich) nothing is shown: the work is the same.
    """
    if not can_redraw():
        yield lambda text: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        yield lambda text: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda text: progress.update(task, description=text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """Rows as aligned columns under their heads; `right` says which columns are numbers. Ends with a newline."""
    widths = [max(len(head[i]), *(len(row[i]) for row in rows)) if rows else len(head[i]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.rjust(width) if i < len(right) and right[i] else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(placed).rstrip()

    return "\n".join([line(head), line(["─" * width for width in widths]), *(line(row) for row in rows)]) + "\n"

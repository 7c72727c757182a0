"""Says on stderr what is being done, and how long each step took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from hubscope.console import terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Steps:
    """`with steps.step("what") as note:` prints `  3.2 s  what: detail` at its end; `note(detail)` sets the detail.

    On a terminal with rich a bar below shows how far the whole is.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.begin = time.monotonic()
        self.taken: list[tuple[str, float]] = []
        self._progress = progress
        self._bar: TaskID | None = progress.add_task("", total=total) if progress is not None else None

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        details: list[str] = []
        begin = time.monotonic()
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, description=what)
        yield lambda detail: details.__setitem__(slice(None), [detail])
        took_s = time.monotonic() - begin
        self.taken.append((what, took_s))
        self.say(f"{took_s:6.1f} s  {what}" + (f": {details[0]}" if details else ""))
        if self._progress is not None and self._bar is not None:
            self._progress.advance(self._bar)

    def say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, highlight=False, markup=False)
        else:
            click.echo(text, err=True)

    @property
    def total_s(self) -> float:
        return time.monotonic() - self.begin


@contextmanager
def steps(total: int) -> Iterator[Steps]:
    """The progress display: a bar on a terminal, plain lines elsewhere and where rich is not installed."""
    progress = _bar()
    if progress is None:
        yield Steps(total, None)
        return
    with progress:
        yield Steps(total, progress)


def _bar() -> Progress | None:
    if not terminal.can_redraw():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        return None
    return Progress(
        SpinnerColumn(),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    )

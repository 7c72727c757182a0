"""`hubscope status --watch`: one view that is drawn anew on a terminal, a line for each look elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import count as numbers_from

import click

from hubscope.console.watch import Exporter, View, look, view


def run(lake: str, form: str, interval_s: float, count: int | None) -> None:
    """Looks until `count` looks are done, Ctrl-C, or the end of the pipe that reads them."""
    try:
        if form == "json":
            for seen in _views(lake, interval_s, count):
                _line(json.dumps(seen.to_dict(), ensure_ascii=False))
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and _has_rich():
            _redraw(lake, interval_s, count)
        else:
            for seen in _views(lake, interval_s, count):
                _line(one_line(seen))
    except KeyboardInterrupt:
        return  # how one leaves it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end


def _views(lake: str, interval_s: float, count: int | None) -> Iterator[View]:
    before = None
    for number in numbers_from(1):
        now = look(lake)
        yield view(now, before)
        if number == count:
            return
        before = now
        time.sleep(interval_s)


def _line(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _has_rich() -> bool:
    from importlib.util import find_spec

    return find_spec("rich") is not None


def _redraw(lake: str, interval_s: float, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    with Live(Text("looking …"), console=Console(), auto_refresh=False) as live:
        for seen in _views(lake, interval_s, count):
            grid = Table.grid(padding=(0, 2))
            for label, text in rows(seen):
                bad = label == "status" and seen.status != "ok"
                grid.add_row(Text(label, style="bold"), Text(text, style="red" if bad else ""))
            live.update(grid, refresh=True)


def rows(seen: View) -> Iterator[tuple[str, str]]:
    """The view as (label, text), top to bottom."""
    from hubscope.analytics.render import numbers

    yield "status", seen.status + (f": {numbers.printable(seen.reason)}" if seen.reason else "")
    yield "time", seen.time
    yield "in", _rates(seen.rates)
    yield "refused", _rates(seen.refused)
    yield "taken", ", ".join(f"{n:,} {name}" for name, n in seen.accepted.items())
    for exporter in seen.exporters:
        behind = f"{_size(exporter.queue_size_bytes)} behind, the oldest {numbers.quantity(exporter.queue_age_s, 's')}"
        error = f"; {numbers.printable(exporter.last_error)}" if exporter.last_error else ""
        if exporter.kept_segments:
            behind += f"; {_kept(exporter)} on disk"
        text = behind if exporter.queue_size_bytes else "up to date"
        yield f"to {numbers.printable(exporter.name)}", text + error
    yield "log", _size(seen.log_size_bytes)
    yield (
        "memory",
        _size(seen.memory_bytes) + (f" of {_size(seen.memory_limit_bytes)}" if seen.memory_limit_bytes else ""),
    )
    yield "cpu", "–" if seen.cpu_share is None else f"{seen.cpu_share:.0%} of a core"
    files = f" in {numbers.count(seen.lake_files, 'file')}" if seen.lake_files is not None else ""
    age = seen.lake_written_age_s
    yield "lake", _size(seen.lake_size_bytes) + files + (f", written {numbers.quantity(age, 's')} ago" if age else "")
    if seen.dead_letters:
        yield "dead letters", f"{seen.dead_letters:,}"
    if seen.redactions is not None:
        yield "redacted", f"{seen.redactions:,}"


def one_line(seen: View) -> str:
    """The view in a line, for a pipe or a log."""
    from hubscope.analytics.render import numbers

    behind = ", ".join(f"{e.name} {numbers.quantity(e.queue_age_s, 's')}" for e in seen.exporters)
    kept = "".join(f"{numbers.printable(e.name)} {_kept(e)} on disk" for e in seen.exporters if e.kept_segments)
    parts = [
        seen.time,
        seen.status,
        f"in {_rates(seen.rates)}",
        f"refused {_rates(seen.refused)}",
        f"behind {numbers.printable(behind) or '–'}",
        *([kept] if kept else []),
        f"log {_size(seen.log_size_bytes)}",
        f"lake {_size(seen.lake_size_bytes)}",
        f"memory {_size(seen.memory_bytes)}",
    ]
    return "  ".join(parts)


def _kept(exporter: Exporter) -> str:
    """What is processed and waits on the disk for a lake that is away."""
    from hubscope.analytics.render import numbers

    return f"{numbers.count(exporter.kept_segments, 'segment')} ({_size(exporter.kept_size_bytes)})"


def _rates(found: dict[str, float] | None) -> str:
    return "–" if found is None else " ".join(f"{rate:,.0f} {name}/s" for name, rate in found.items())


def _size(size_bytes: int | None) -> str:
    from hubscope.analytics.render import numbers

    return "–" if size_bytes is None else numbers.quantity(size_bytes, "By")

"""`hubscope status`: what is in the lake, how fresh, how large."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hubscope.console import terminal
from hubscope.console.options import example, lake_option

if TYPE_CHECKING:
    from hubscope.console.lake_status import Collector, Status


@click.command(
    "status",
    epilog=example(
        "hubscope status",
        "hubscope status --format json | jq .services",
        "hubscope status --watch                  # until Ctrl-C",
        "hubscope status --watch --json --count 1 | jq .rates",
    ),
)
@lake_option
@click.option(
    "--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True, help="How to write it."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--watch", is_flag=True, help="Watch the collector: what comes, what waits, what it takes. Ctrl-C ends.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="With --watch: leave after so many looks.")
def command(lake: str, form: str, as_json: bool, watch: bool, interval: float, count: int | None) -> None:
    """Shows the lake's tables, rows, files and size, its services with versions and runs, and the collector.

    With --watch, what the collector does now: on a terminal a view that is drawn anew, elsewhere a line a look.
    """
    form = "json" if as_json else form
    if watch:
        from hubscope.console import watch_view

        watch_view.run(lake, form, interval, count)
        return
    from hubscope.console import lake_status

    with terminal.working("reading the lake"):
        found = lake_status.read(lake)
    if form == "json":
        click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False, default=str))
    else:
        click.echo(text(found), nl=False)


def text(status: Status) -> str:
    """The status as text, ending in a newline."""
    from hubscope.analytics.render import numbers

    files = sum(table.files for table in status.tables)
    size = numbers.quantity(sum(table.size_bytes for table in status.tables), "By")
    newest = max((table.newest for table in status.tables if table.newest), default=None)
    lines = [
        f"lake       {status.lake} (version {status.lake_version})",
        f"size       {size} in {numbers.count(files, 'file')}{_cold(status)}",
        f"newest     {_ago(newest)}",
        f"collector  {_collector(status.collector)}",
    ]
    lines += [f"{name:<10} {done}" for name, done in _processors(status.collector)]
    if status.log_segments_waiting:
        waiting = f"log        {numbers.count(status.log_segments_waiting, 'segment')} not in the lake yet"
        lines.append(waiting + _kept(status.collector))
    lines += [
        f"forward    {numbers.count(n, 'segment')} not at {name} yet" for name, n in status.forwards_waiting.items()
    ]
    upkeep = (status.collector.health or {}).get("lake_upkeep") or {} if status.collector else {}
    if upkeep.get("low_disk"):
        lines.append(f"disk       {upkeep['low_disk']}")
    if upkeep.get("last_drop"):
        lines.append(f"dropped    {upkeep['last_drop']}")
    filled = [table for table in status.tables if table.rows]
    if not filled:
        return "\n".join([*lines, "", "The lake is empty: `hubscope run -- CMD` fills it."]) + "\n"
    rows = [
        (t.name, f"{t.rows:,}", f"{t.files:,}", numbers.quantity(t.size_bytes, "By"), numbers.moment(t.newest))
        for t in filled
    ]
    lines += ["", terminal.table(("table", "rows", "files", "size", "newest"), rows, (False, True, True, True))]
    services = [
        (numbers.printable(s.name), numbers.printable(", ".join(s.versions) or "–"), f"{s.runs:,}", f"{s.spans:,}")
        for s in status.services
    ]
    if services:
        lines.append(terminal.table(("service", "versions", "runs", "spans"), services, (False, False, True, True)))
    return "\n".join(lines)


def _cold(status: Status) -> str:
    from hubscope.analytics.render import numbers

    cold_bytes = sum(table.cold_size_bytes for table in status.tables)
    return f", {numbers.quantity(cold_bytes, 'By')} of it cold" if cold_bytes else ""


def _collector(collector: Collector | None) -> str:
    if collector is None:
        return "not running"
    where = ", ".join(f"{name} {address}" for name, address in collector.addresses.items())
    if collector.health is None:
        return f"pid {collector.pid} does not answer; see `hubscope doctor`"
    return f"pid {collector.pid}, {collector.health.get('status', 'answers')}" + (f"; {where}" if where else "")


def _kept(collector: Collector | None) -> str:
    """How much of it is processed and waits on the disk, as it does while the lake is away."""
    from hubscope.analytics.render import numbers

    said = ((collector.health or {}).get("exporters") or {}).get("lake", {}) if collector else {}
    if not said.get("kept_segments"):
        return ""
    return f", {said['kept_segments']:,} of them processed, as {numbers.quantity(said['kept_bytes'], 'By')} of rows"


def _processors(collector: Collector | None) -> list[tuple[str, str]]:
    """What the collector's processors did since it started: (what, how much of each kind)."""
    processors = (collector.health or {}).get("processors", {}) if collector else {}
    titles = {"redaction": "redacted", "attribute_limits": "limits", "sampling": "sampling"}
    told = []
    for name, counts in processors.items():
        done = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in sorted(counts.items()) if number)
        if done:
            told.append((titles.get(name, name), done))
    return told


def _ago(newest: str | None) -> str:
    from hubscope.analytics.render import numbers

    if newest is None:
        return "nothing yet"
    age_s = (datetime.now(UTC) - datetime.fromisoformat(newest)).total_seconds()
    return f"{numbers.quantity(round(age_s), 's')} ago ({numbers.moment(newest)})" if age_s >= 1 else "just now"

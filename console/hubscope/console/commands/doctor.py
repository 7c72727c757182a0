"""`hubscope doctor`: what is wrong with this set-up, and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import click

from hubscope.console import checks, lake_checks, terminal
from hubscope.console.checks import FAIL, OK, WARN, Check
from hubscope.console.options import example, lake_option
from hubscope.errors import EXIT_ANSWER_IS_NO

# The order is the order of the answer: what everything else rests on comes first.
OF_THE_MACHINE: tuple[Callable[[], Iterable[Check]], ...] = (
    checks.python,
    checks.packages,
    checks.opentelemetry,
    checks.environment,
)
OF_THE_LAKE: tuple[Callable[[str], Iterable[Check]], ...] = (
    lake_checks.ports,
    lake_checks.collector,
    lake_checks.lake,
    lake_checks.privacy,
    lake_checks.backlog,
    lake_checks.dead_letters,
)

_MARK = {OK: ("✓", "green"), WARN: ("!", "yellow"), FAIL: ("✗", "red")}


@click.command(
    "doctor", epilog=example("hubscope doctor", "hubscope doctor --format json | jq '.[] | select(.state != \"ok\")'")
)
@lake_option
@click.option(
    "--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True, help="How to write it."
)
def command(lake: str, form: str) -> int:
    """Checks Python, packages, ports, the collector, the lake, its log and the OTEL_* variables: what to mend, and how.

    Exit code 1 if something is wrong (✗); a warning (!) alone is 0.
    """
    with terminal.working("checking"):
        found = [check for ask in OF_THE_MACHINE for check in ask()]
        found += [check for ask in OF_THE_LAKE for check in ask(lake)]
    if form == "json":
        click.echo(json.dumps([check._asdict() for check in found], indent=2, ensure_ascii=False))
    else:
        _print(found)
    return EXIT_ANSWER_IS_NO if any(check.state == FAIL for check in found) else 0


def _print(found: list[Check]) -> None:
    width = max(len(check.what) for check in found)
    for check in found:
        mark, colour = _MARK[check.state]
        click.echo(f"{click.style(mark, fg=colour)} {check.what:<{width}}  {check.detail}")
        if check.remedy:
            click.echo(f"  {'':<{width}}  → {check.remedy}")
    wrong = sum(check.state == FAIL for check in found)
    warned = sum(check.state == WARN for check in found)
    click.echo()
    click.echo("All is well." if not wrong + warned else f"{wrong} wrong, {warned} to look at.")

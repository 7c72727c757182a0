"""Options that several commands share, so that each means the same everywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LAKE_ENV = "HUBSCOPE_LAKE"
RULES_ENV = "HUBSCOPE_RULES"
STATE_FOLDER = ".state"

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def default_lake() -> str:
    """The lake that is used when none is named: `hubscope/lake` in the platform's user data folder."""
    import platformdirs

    return str(Path(platformdirs.user_data_dir("hubscope", appauthor=False)) / "lake")


def lake_option(command: F) -> F:
    """`--lake PATH`, or `HUBSCOPE_LAKE`, or the default lake. Passed on as `lake: str` (a path or a URL)."""
    return click.option(
        "--lake",
        envvar=LAKE_ENV,
        metavar="PATH",
        callback=_lake,
        help=f"Where the lake is (or {LAKE_ENV}).  [default: hubscope/lake in your user data folder]",
    )(command)


def _lake(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    lake = value or default_lake()
    return lake if is_url(lake) else os.path.abspath(os.path.expanduser(lake))


def rules_option(command: F) -> F:
    """`--rules FILE`, or `HUBSCOPE_RULES`. Passed on as `rules: str | None`."""
    return click.option(
        "--rules",
        envvar=RULES_ENV,
        metavar="FILE",
        help=f"TOML file that overlays the shipped KPIs and quotas (or {RULES_ENV}).",
    )(command)


def is_url(lake: str) -> bool:
    """True for a lake on object storage or a server, False for a folder (also for `C:\\lake`)."""
    return re.match(r"[a-z][a-z0-9+.-]+://", lake, re.IGNORECASE) is not None


def state_dir(lake: str) -> Path | None:
    """The collector's state folder beside a local lake; None where the lake is a URL."""
    return None if is_url(lake) else Path(lake) / STATE_FOLDER


def parse_when(text: str) -> datetime:
    """A moment in UTC from an age (`90s`, `30m`, `24h`, `7d`, `2w`) or an ISO 8601 time (local where it has no zone).

    Raises ValueError for anything else.
    """
    text = text.strip()
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(seconds=float(age[1]) * _UNITS_S[age[2]])
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is neither an age such as 24h or 7d, nor a time such as 2026-03-01T12:00."
        ) from error


def _when(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return parse_when(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def window_options(command: F) -> F:
    """`--since` and `--until`, each a `datetime` in UTC or None."""
    command = click.option(
        "--until", callback=_when, metavar="WHEN", help="Only what happened before: an age (1h) or an ISO 8601 time."
    )(command)
    return click.option(
        "--since",
        callback=_when,
        metavar="WHEN",
        help="Only what happened since: an age (24h, 7d) or an ISO 8601 time.",
    )(command)


def check_window(since: datetime | None, until: datetime | None) -> None:
    """Refuses a window that ends before it starts."""
    if since is not None and until is not None and until <= since:
        raise click.UsageError(f"--until ({until.isoformat()}) is not after --since ({since.isoformat()}).")


def example(*lines: str) -> str:
    """An epilog that shows commands, one a line; `\\b` keeps click from joining them."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)

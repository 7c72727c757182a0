"""`hubscope sql`: questions of one's own, or a shipped query by its name."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from hubscope.console import readonly, terminal
from hubscope.console.options import check_window, example, lake_option, window_options
from hubscope.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

FORMATS = ("table", "json", "csv")
CELL_WIDTH = 60  # of the table; json and csv give every value whole
_FOREVER_NS = 2**63 - 1


@click.command(
    "sql",
    epilog=example(
        "hubscope sql --list",
        "hubscope sql query_shapes --service datasette",
        "hubscope sql 'SELECT SpanName, count(*) FROM otel_traces GROUP BY 1 ORDER BY 2 DESC' --format csv",
        "hubscope sql -f mine.sql --param service=datasette",
    ),
)
@click.argument("query", required=False)
@click.option("-f", "--file", "file", type=click.File("r", encoding="utf-8"), help="Read the query from this file.")
@click.option("--list", "list_", is_flag=True, help="List the shipped queries, each with what it answers, and leave.")
@click.option("--show", is_flag=True, help="Print the text of a shipped query instead of running it.")
@lake_option
@click.option("--service", metavar="NAME", help="Value of $service.  [default: the lake's only service]")
@window_options
@click.option(
    "--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Value of $NAME in the query. May be repeated."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to write the rows."
)
def command(
    query: str | None,
    file: io.TextIOBase | None,
    list_: bool,
    show: bool,
    lake: str,
    service: str | None,
    since: datetime | None,
    until: datetime | None,
    params: tuple[str, ...],
    form: str,
) -> None:
    """Runs QUERY, a query file or a shipped query by its NAME over the lake's tables. Reads only: nothing is changed.

    Values are bound, never pasted in: $service, $since_ns and $until_ns come from --service, --since and --until, every
    other $NAME from --param NAME=VALUE (a number where it reads as one, else text).
    """
    from hubscope.analytics import engine as shipped

    if list_:
        _list(shipped.names(), shipped.about, form)
        return
    check_window(since, until)
    if (query is None) == (file is None):
        raise click.UsageError("Give a QUERY, or -f FILE, or --list.")
    text = file.read() if file is not None else query or ""
    name = text.strip() if file is None else ""
    if name in shipped.names():
        text = shipped.source(name)
    elif name.isidentifier():
        raise ConfigError(f"there is no shipped query {name!r}", "see hubscope sql --list")
    if show:
        click.echo(text.rstrip())
        return
    from hubscope.analytics.connect import connect

    connection = connect(lake)
    readonly.lock(connection)
    sql = readonly.check(connection, shipped.for_lake(text))
    wanted = shipped.binds_of(sql)
    values = _values(connection, wanted, params, service, since, until)
    with terminal.working("running the query"):
        columns, rows = _run(connection, sql, values)
    _write(columns, rows, form)


def _list(names: Sequence[str], about: Any, form: str) -> None:
    if form == "table":
        width = max(len(name) for name in names) + 2
        for name in names:
            click.echo(f"{name:<{width}}{about(name)}")
    else:
        _write(("name", "about"), [(name, about(name)) for name in names], form)


def _values(
    connection: duckdb.DuckDBPyConnection,
    wanted: Sequence[str],
    params: Sequence[str],
    service: str | None,
    since: datetime | None,
    until: datetime | None,
) -> dict[str, Any]:
    """A value for every name in `wanted`; ConfigError names all that have none."""
    given: dict[str, Any] = {
        "since_ns": int(since.timestamp() * 1e9) if since else 0,
        "until_ns": int(until.timestamp() * 1e9) if until else _FOREVER_NS,
    }
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{param!r} is not NAME=VALUE", param_hint="--param")
        given[name] = _number_or_text(value)
    if service is not None:
        given["service"] = service
    elif "service" in wanted and "service" not in given:
        given["service"] = _only_service(connection)
    missing = [name for name in wanted if name not in given]
    if missing:
        remedy = " ".join(f"--param {name}=…" for name in missing)
        raise ConfigError(f"the query needs a value for {', '.join('$' + name for name in missing)}", f"add {remedy}")
    return {name: given[name] for name in wanted}


def _number_or_text(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _only_service(connection: duckdb.DuckDBPyConnection) -> str:
    from hubscope.analytics.fetch import fetch

    _, found = fetch(connection, "SELECT DISTINCT ServiceName FROM otel_traces ORDER BY 1 LIMIT 20")
    services = [row[0] for row in found]
    if len(services) != 1:
        known = f"the lake has {', '.join(services)}" if services else "the lake holds no spans yet"
        raise ConfigError(f"the query asks for one service, and {known}", "add --service NAME")
    return str(services[0])


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    import duckdb

    from hubscope.analytics.fetch import fetch

    try:
        return fetch(connection, sql, values)
    except duckdb.InterruptException:
        raise
    except duckdb.PermissionException as error:
        raise ConfigError(f"the query wants what it may not have: {_first_line(error)}", readonly.REMEDY) from error
    except duckdb.Error as error:
        raise ConfigError(
            f"the query failed: {str(error).strip()}", "`hubscope sql 'SHOW TABLES'` and `DESCRIBE otel_traces` help"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _write(columns: Sequence[str], rows: Sequence[Sequence[Any]], form: str) -> None:
    if form == "json":
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        click.echo(json.dumps(objects, indent=2, ensure_ascii=False, default=str))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(columns))]
        cells = [[_cell(value, column) for column, value in zip(columns, row, strict=True)] for row in rows]
        click.echo(terminal.table(columns, cells, numeric), nl=False)
        terminal.say(f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object, column: str) -> str:
    """A value as a person reads it: shipped queries name seconds `…_s`, and these become ms or µs."""
    from hubscope.analytics.render import numbers

    if value is None:
        return numbers.UNKNOWN
    if isinstance(value, float):
        return numbers.quantity(value, "s") if column.endswith("_s") else numbers.digits(value)
    text = str(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"

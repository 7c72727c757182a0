"""`hubscope trace`: one trace as a tree with its critical path."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from hubscope.console.options import example, lake_option
from hubscope.errors import ConfigError, LakeError

if TYPE_CHECKING:
    import duckdb

FORMATS = ("text", "json", "otlp", "html")
_ID_DIGITS = 32
_SHOWN = 8  # candidates named where a prefix is not unique


@click.command(
    "trace",
    epilog=example(
        "hubscope trace 4bf92f35",
        "hubscope trace 4bf92f3577b34da6a3ce929d0e0e4736 --format json",
        "hubscope trace 4bf92f35 --format otlp | curl -H 'Content-Type: application/json' -d @- URL/v1/traces",
    ),
)
@click.argument("trace_id")
@lake_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="text is a tree; otlp is OTLP JSON that any backend takes.",
)
@click.option(
    "--all", "every_span", is_flag=True, help="In the tree, list every span; else siblings of one name share a line."
)
def command(trace_id: str, lake: str, form: str, every_span: bool) -> None:
    """Shows the trace TRACE_ID (or the first digits of it): what ran inside what, how long, and what held it up.

    The critical path is the chain of spans that the whole had to wait for: only what is on it can make it faster.
    """
    from hubscope.analytics.connect import connect
    from hubscope.analytics.engine import Engine
    from hubscope.analytics.traces import load_trace

    connection = connect(lake)
    whole_id = resolve(connection, trace_id)
    if form == "otlp":
        click.echo(json.dumps(_otlp(connection, whole_id), ensure_ascii=False))
        return
    trace = load_trace(Engine(connection), whole_id)
    if form == "json":
        click.echo(trace.to_json())
    elif form == "html":
        from hubscope.analytics.render import html

        click.echo(html.render_trace(trace))
    else:
        from hubscope.analytics.render import trace_text

        click.echo(trace_text.render(trace, every_span), nl=False)


def resolve(connection: duckdb.DuckDBPyConnection, start: str) -> str:
    """The whole id of the one trace that starts with `start`; ConfigError or LakeError says what is wrong with it."""
    digits = start.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{1,{_ID_DIGITS}}}", digits):
        raise ConfigError(
            f"{start!r} is no trace id",
            f"give its {_ID_DIGITS} hex digits or the first of them; the report prints them",
        )
    found = connection.execute(
        "SELECT DISTINCT TraceId FROM otel_traces WHERE starts_with(TraceId, $digits) ORDER BY 1 LIMIT $limit",
        {"digits": digits, "limit": _SHOWN + 1},
    ).fetchall()
    ids = [str(row[0]) for row in found]
    if not ids:
        raise LakeError(
            f"the lake holds no trace {digits}{'…' if len(digits) < _ID_DIGITS else ''}",
            "`hubscope status` says what it holds; a trace just sent needs about two seconds",
        )
    if len(ids) > 1:
        listed = ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
        raise ConfigError(f"{digits}… is the start of several traces: {listed}", "give more digits")
    return ids[0]


def _otlp(connection: duckdb.DuckDBPyConnection, trace_id: str) -> dict[str, object]:
    from hubscope.analytics.fetch import fetch
    from hubscope.analytics.render import otlp_json

    columns = ", ".join(otlp_json.COLUMNS)
    query = f"SELECT {columns} FROM otel_traces WHERE TraceId = $trace_id ORDER BY TimestampUnixNano, SpanId"
    names, rows = fetch(connection, query, {"trace_id": trace_id})
    return otlp_json.render([dict(zip(names, row, strict=True)) for row in rows])

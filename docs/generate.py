"""Writes docs/reference/ from the sources, so that it cannot say anything else than the code does.

    python docs/generate.py           writes the pages
    python docs/generate.py --check   writes nothing; exit 1 and the first differing lines where a page is stale

A command, an option or an argument without help is an error: a reference with gaps is not written.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

REFERENCE = Path(__file__).parent / "reference"
WRITTEN = "<!-- Written by docs/generate.py. Change the source it names, then run `make docs`. -->"


class Incomplete(Exception):
    """The sources do not say what the reference must; one problem a line."""


def page(title: str, source: str, *parts: str) -> str:
    """A page: the marker, the title, where its content comes from, its parts."""
    return "\n\n".join([WRITTEN, f"# {title}", f"From {source}.", *(p.strip("\n") for p in parts if p.strip())]) + "\n"


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; a cell's `|` and line breaks are kept from breaking it."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headings), line(tuple("---" for _ in headings)), *map(line, rows)])


def code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- commands -----------------------------------------------------------------------------------------------


def commands() -> str:
    from hubscope.console.main import main

    problems: list[str] = []
    parts = ["\n\n".join(_command(main, "hubscope", None, problems))]
    context = click.Context(main, info_name="hubscope")
    for name in main.list_commands(context):
        try:
            command = main.get_command(context, name)
        except ImportError as error:
            problems.append(f"hubscope {name}: cannot be loaded: {error}")
            continue
        if command is None:
            problems.append(f"hubscope {name}: is listed and does not exist")
            continue
        parts += _command(command, f"hubscope {name}", context, problems)
    if problems:
        raise Incomplete("\n".join(problems))
    return page("Commands", "the click commands under `console/hubscope/console/commands/`", *parts)


def _command(command: click.Command, path: str, parent: click.Context | None, problems: list[str]) -> Iterator[str]:
    context = click.Context(
        command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=100, max_content_width=100
    )
    if not (command.help or "").strip():
        problems.append(f"{path}: has no help")
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden):
            problems.append(f"{path} {parameter.opts[0]}: has no help")
    yield f"## {path}"
    yield f"```text\n{command.get_help(context).strip()}\n```"
    if isinstance(command, click.Group) and parent is not None:
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _command(below, f"{path} {name}", context, problems)


# --- environment --------------------------------------------------------------------------------------------


def environment() -> str:
    from hubscope.environment import VARIABLES

    rows = [(code(v.name), code(v.default), v.brief) for v in sorted(VARIABLES)]
    return page(
        "Environment variables",
        "`instrumentation/hubscope/environment.py`",
        "Every `OTEL_*` variable keeps OpenTelemetry's meaning. These are ours:",
        table(("variable", "default", "meaning"), rows),
    )


# --- names --------------------------------------------------------------------------------------------------


def names() -> str:
    from hubscope import semconv

    spans = [(code(s.name), s.kind, s.brief, ", ".join(map(code, s.attributes))) for s in semconv.SPANS]
    metrics = [
        (code(m.name), m.instrument, code(m.unit), m.sender, m.brief, ", ".join(map(code, m.attributes)))
        for m in semconv.METRICS
    ]
    events = [(code(e.name), e.brief, ", ".join(map(code, e.attributes))) for e in semconv.EVENTS]
    attributes = [
        (code(a.name), a.type, code(a.unit), a.stability, code(a.column), a.brief) for a in semconv.ATTRIBUTES
    ]
    return page(
        "Spans, metrics, events and attributes",
        "`instrumentation/hubscope/semconv.py`",
        f"OpenTelemetry semantic conventions ({semconv.SCHEMA_URL}) where they exist, `hub.*` where they do not.",
        "## Spans",
        table(("name", "kind", "meaning", "attributes"), spans),
        "## Metrics",
        "hubscope does not measure what the application sends itself; KPIs are read from it where it comes.",
        table(("name", "instrument", "unit", "sent by", "meaning", "attributes"), metrics),
        "## Events",
        "Log records with that event name.",
        table(("name", "meaning", "attributes"), events),
        "## Attributes",
        "An attribute with a column also stands as that column in the lake's tables.",
        table(("name", "type", "unit", "stability", "column", "meaning"), attributes),
    )


EXAMPLE = """\
```toml
[[kpi]]
name = "startup.cold"
title = "Cold start"
unit = "s"
source = "our own"
span = "hub.startup"
where = { "hub.startup.type" = "cold" }
aggregate = "p95"
target = "< 1500 ms"
severity = "high"
unknown = "no cold start was received"

[[alert]]
name = "slow_start"
title = "Start above two seconds"
kpi = "startup.cold"
threshold = "> 2 s"
source = "our own"

[[quota]]
name = "execution.slow"
resource = "execution"
plugin = "slow-*"
limit = "60 s"
source = "our own"
```"""


# --- KPIs ---------------------------------------------------------------------------------------------------


def kpis() -> str:
    from hubscope.processors import rules, rules_file

    found = rules_file.load("")
    rows = [
        (code(k.name), k.title, code(k.unit), _aggregate(k), code(str(k.target or "")), k.severity, k.source)
        for k in found.kpis
    ]
    details = [f"- {code(k.name)}: {_fed(k)}. Otherwise unknown: {k.unknown}." + _note(k.note) for k in found.kpis]
    alerts = [
        (code(a.name), a.title, code(a.kpi), code(str(a.threshold)), f"{a.clear:g}", a.severity, a.source, a.note)
        for a in found.alerts
    ]
    quotas = [
        (
            code(q.name),
            q.resource,
            q.tier,
            q.permission,
            _limit(q),
            f"{q.window_s:g} s" if q.window_s else "one call",
            q.source,
        )
        for q in found.quotas
    ]
    return page(
        "KPIs, alerts and quotas",
        "`processors/hubscope/processors/kpis.toml` and `quotas.toml`",
        "A file named by `HUBSCOPE_RULES` or `--rules` holds records of the same form; one of the same name replaces"
        " the packaged one. Complete records:",
        EXAMPLE,
        "## KPIs",
        table(("name", "title", "unit", "aggregate", "target", "severity", "asked for in"), rows),
        "What each is measured on:",
        "\n".join(details),
        "## Alerts",
        table(("name", "title", "KPI", "raised at", "again after", "severity", "asked for in", "note"), alerts),
        "## Quotas of plugins",
        table(("name", "resource", "tier", "permission", "limit", "judged over", "asked for in"), quotas),
        "## The fields of a record",
        f"```text\n{rules.__doc__.strip() if rules.__doc__ else ''}\n```",
        f"Aggregates: {', '.join(map(code, rules.AGGREGATES))}. Severities: {', '.join(map(code, rules.SEVERITIES))}. "
        f"Units in targets and limits: {', '.join(map(code, _units()))}. {rules_file.__doc__}",
    )


def _units() -> list[str]:
    from hubscope.processors import targets

    return list(targets.UNITS)


def _note(note: str) -> str:
    return f" ({note})" if note else ""


def _aggregate(kpi: Any) -> str:
    return f"{kpi.aggregate}, T = {kpi.apdex_threshold_s:g} s" if kpi.aggregate == "apdex" else str(kpi.aggregate)


def _limit(quota: Any) -> str:
    from hubscope.processors.targets import show_quantity

    return show_quantity(quota.limit, quota.unit) if quota.limit else "none"


def _fed(kpi: Any) -> str:
    if kpi.numerator and kpi.denominator:
        return f"{_feed(kpi.numerator)}, over {_feed(kpi.denominator)}"
    ratings = f", with {_feed(kpi.ratings)}" if kpi.ratings else ""
    return "; where there is none, ".join(map(_feed, kpi.feeds)) + ratings


def _feed(feed: Any) -> str:
    if feed.metric:
        what = f"metric {code(feed.metric)}"
    else:
        conditions = [*(["root"] if feed.root else []), *(f"kind {k}" for k in feed.kind)]
        conditions += [f"status {code(feed.status)}"] if feed.status else []
        what = " ".join([*(f"{c}," for c in conditions), "spans", " or ".join(map(code, feed.span))])
    where = [
        f"{code(name)} = {' or '.join(code(g) if g else 'absent' for g in globs)}" for name, globs in feed.where.items()
    ]
    value = "" if feed.value in ("duration", "value") else f", their {code(feed.value)}"
    return what + (f" where {' and '.join(where)}" if where else "") + value


# --- the lake -----------------------------------------------------------------------------------------------


def lake() -> str:
    from hubscope import lake_schema

    comments = _column_comments(Path(lake_schema.__file__).read_text(encoding="utf-8"))
    parts: list[str] = [f"```text\n{(lake_schema.__doc__ or '').strip()}\n```"]
    shared = set.intersection(*({field.name for field in schema} for schema in lake_schema.SCHEMAS.values()))
    first = next(iter(lake_schema.SCHEMAS.values()))
    parts += ["## In every table", _columns([field for field in first if field.name in shared], comments)]
    for name, schema in lake_schema.SCHEMAS.items():
        parts += [f"## {name}", _columns([field for field in schema if field.name not in shared], comments)]
    return page("The lake's tables", "`exporters/hubscope/lake_schema.py`", *parts)


def _columns(fields: list[Any], comments: dict[str, str]) -> str:
    from hubscope.semconv import HOT_COLUMNS

    hot = {column: f"the attribute {code(name)}; null where it is absent" for name, column in HOT_COLUMNS.items()}
    rows = [(code(f.name), code(_type(f.type)), hot.get(f.name) or comments.get(f.name, "")) for f in fields]
    return table(("column", "type", "meaning"), rows)


def _type(arrow_type: Any) -> str:
    return re.sub(r"\s+", " ", str(arrow_type)).replace(" ('entries')", "")


def _column_comments(source: str) -> dict[str, str]:
    """Column -> the comment behind it in the schema's source (the first, where several tables have the column)."""
    from hubscope.lake_schema import PARTITION

    found: dict[str, str] = {}
    source = source.replace("pa.field(PARTITION,", f'pa.field("{PARTITION}",')
    for name, comment in re.findall(r'(?:pa\.field\(|\()"(\w+)",.*?\),?\s*#\s*(.+)', source):
        found.setdefault(name, comment)
    return found


# --- configuration ------------------------------------------------------------------------------------------


def configuration() -> str:
    from hubscope.collector import reload
    from hubscope.collector.configuration import destinations, settings

    flags = {path: flag for flag, path in settings.FLAGS.items()}
    rows = [
        (
            code(key.path),
            code(flags.get(key.path, "")),
            " ".join((key.read.__doc__ or "").split("\n\n")[0].split()),
            _default(key.field),
            key.brief,
            reload.effect(key.field),
        )
        for key in settings.KEYS
    ]
    example = (Path(__file__).parent.parent / "deploy" / "collector.yaml").read_text(encoding="utf-8")
    return page(
        "The collector's configuration",
        "`collector/hubscope/collector/configuration/settings.py` and `deploy/collector.yaml`",
        "What the file may hold. A flag wins over the file. *SIGHUP* says what becomes of a change when the collector"
        " is told to read its file again. More in [configuration.md](../configuration.md) and, on the processors,"
        " [processors.md](../processors.md).",
        table(("key", "flag", "value", "default", "meaning", "SIGHUP"), rows),
        "## Destinations beside the lake",
        "Each kind is a URL, a table, or a list of them. A change of one starts the worker anew.",
        *(
            f"### {code(f'exporters.{kind.name}')}\n\n{table(('key', 'value', 'meaning'), _destination_keys(kind))}"
            for kind in destinations.KINDS
        ),
        "## Everything in one file",
        f"```yaml\n{example.strip()}\n```",
    )


def _destination_keys(kind: Any) -> list[tuple[str, str, str]]:
    return [
        (code(key.path), " ".join((key.read.__doc__ or "").split("\n\n")[0].split()), key.brief) for key in kind.keys
    ]


def _default(field: str) -> str:
    """The default of a setting, as one would write it."""
    from hubscope.collector.configuration.settings import CollectorSettings

    group, _, name = field.rpartition(".")
    settings: Any = CollectorSettings("", "")
    holder = settings if hasattr(settings, group) or not group else settings.processors
    value = getattr(getattr(holder, group) if group else settings, name, None)
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value >> 20} MiB"
    if name.endswith("_s") and isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value else ""


# --- errors -------------------------------------------------------------------------------------------------


def errors() -> str:
    from hubscope import errors as module

    meanings = {
        "DONE": "done",
        "ANSWER_IS_NO": "the answer is no: `hubscope doctor` found something that does not work",
        "USAGE": "wrong usage or configuration",
        "UNREADABLE": "the lake, a file or a destination cannot be read or written",
        "BUG": "a bug: the message says how to report it",
        "INTERRUPTED": "interrupted",
    }
    exits = {name.removeprefix("EXIT_"): value for name, value in vars(module).items() if name.startswith("EXIT_")}
    unsaid = exits.keys() ^ meanings.keys()
    if unsaid:
        raise Incomplete(
            f"exit codes without a meaning in docs/generate.py, or the reverse: {', '.join(sorted(unsaid))}"
        )
    codes = [(str(value), meanings[name]) for name, value in sorted(exits.items(), key=lambda pair: pair[1])]
    kinds = [
        (code(kind.__name__), (kind.__doc__ or "").split("\n\n")[0], str(s.exit_code), str(s.http), str(s.grpc))
        for kind, s in module.STATUS_OF
        if issubclass(kind, module.HubscopeError)
    ]
    return page(
        "Errors and exit codes",
        "`instrumentation/hubscope/errors.py`",
        "## Exit codes",
        table(("code", "meaning"), codes),
        "`hubscope run -- CMD` leaves with CMD's own exit code.",
        "## What each error becomes",
        table(("error", "meaning", "exit code", "HTTP", "gRPC"), kinds),
    )


# --- libraries ----------------------------------------------------------------------------------------------


def libraries() -> str:
    from hubscope.instrumentation.libraries.versions import CLAIMS

    rows = [(c.distribution, c.oldest, c.newest, code(c.entry_point), code(c.file)) for c in CLAIMS]
    return page(
        "Libraries that are measured",
        "`instrumentation/hubscope/instrumentation/libraries/versions.py`",
        "`make versions` runs the tests of each against both versions. Others may work; these are tried. `sqlite3` and"
        " `functools.lru_cache` are the interpreter's. An instrumentation is switched off by its name in"
        " `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`.",
        table(("library", "oldest", "newest", "instrumentation", "tests"), rows),
    )


# --- OTLP conformance ---------------------------------------------------------------------------------------

DUTIES = Path(__file__).parent.parent / "tests" / "collector" / "duties"
CONFORMANCE = """
Every rule is a test that puts bytes on a real socket of the collector: OTLP 1.11, RFC 9110 and 9112, ProtoJSON, and
what broke other servers. The last column is the OpenTelemetry Collector 0.140 asked the same (`python -m
tests.collector.duties.stock`): "holds", "differs", or nothing where the rule is about our settings or our lake. Some
rules are choices that the specification leaves open, so "differs" is not always "wrong".

What is decided where the specification leaves it open:

- A request is taken whole or refused whole, so `rejected_…` is never above 0; `partial_success` carries warnings only.
- 64 MiB after decompression (`receivers.max_request_size`), at most 1,000,000 spans, points or records and 2,000,000
  parts in them, and in JSON 1,600,000 objects and lists and 4,000,000 members.
- Values may be nested as deep as protobuf's parsers read them: 100 messages inside each other. That is 47 arrays in an
  attribute of a span or log record, 48 in a log's body, and 31 key-value lists.
- Request line, headers and trailers 64 KiB; headers within 20 s, a body or gRPC message within 60 s.
- Codings are none and gzip, everything else is 415.
- In JSON, of a key that stands twice the last counts; two members of a oneof are an error; a byte order mark is
  ignored.
"""


def conformance() -> str:
    stock = json.loads((DUTIES / "stock.json").read_text(encoding="utf-8"))
    problems: list[str] = []
    parts = [CONFORMANCE]
    for path in sorted(DUTIES.glob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        rows = []
        for node in module.body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            rule = ast.get_docstring(node) or ""
            if not rule:
                problems.append(f"{path.name}::{node.name} has no docstring")
            marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
            ours = "no: grpcio's core answers before us" if "by_grpcio" in marks else "yes"
            rows.append((rule, code(node.name), ours, stock.get(f"{path.stem}.{node.name}", "")))
        title = (ast.get_docstring(module) or path.stem).splitlines()[0].rstrip(".")
        parts.append(f"## {title}\n\n" + table(("rule", "test", "holds", "stock Collector"), rows))
    if problems:
        raise Incomplete("\n".join(problems))
    return page(
        "OTLP conformance",
        f"the {sum(part.count(' | `test_') for part in parts)} tests in `tests/collector/duties/`",
        *parts,
    )


PAGES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("commands.md", commands),
    ("environment.md", environment),
    ("names.md", names),
    ("kpis.md", kpis),
    ("lake.md", lake),
    ("configuration.md", configuration),
    ("errors.md", errors),
    ("libraries.md", libraries),
    ("otlp-conformance.md", conformance),
)


def main(arguments: list[str]) -> int:
    """Writes or checks every page; returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    failed = False
    for name, build in PAGES:
        path = REFERENCE / name
        try:
            new = build()
        except Incomplete as error:
            print(f"docs/reference/{name} cannot be written:\n{error}", file=sys.stderr)
            failed = True
            continue
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if new == old:
            continue
        if arguments:
            print(f"docs/reference/{name} is stale: run `make docs` and commit it", file=sys.stderr)
            changed = [
                line
                for line in difflib.unified_diff(
                    old.splitlines(), new.splitlines(), "committed", "sources", "", "", 0, ""
                )
                if not line.startswith("@@")
            ]
            print("\n".join(f"  {line[:200]}" for line in changed[:12]), file=sys.stderr)
            failed = True
            continue
        REFERENCE.mkdir(exist_ok=True)
        path.write_text(new, encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

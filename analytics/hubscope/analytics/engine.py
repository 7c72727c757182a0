"""Shipped SQL: found by name, read from its file, its values bound.

A file is plain SQL with `$name` for each value. On our lake three spellings are replaced before it runs, because the
lake keeps these in columns of their own: `attr(SpanAttributes, 'db.query.summary')` by `DbQuerySummary` (grouping by
a map entry reads 3.6 million rows/s, by a column 64 million), `run_of(ResourceAttributes)` by the run of its two
columns, and `ts_ns(Timestamp)` by `TimestampUnixNano` (Delta's time is in microseconds).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import duckdb

from hubscope.analytics.fetch import fetch
from hubscope.errors import ConfigError
from hubscope.semconv import HOT_COLUMNS

# Answers of at most so many rows are kept: a report asks one KPI's query for its value, its comparison and its trend,
# of each version anew. The lake's snapshot does not change under a connection.
KEPT_ROWS: Final = 10_000

# What a bound text means "any" with: NULL would need engine-specific casts.
ANY: Final = "*"

_ATTR = re.compile(r"\battr\(\s*(\w+\.)?(?:Span|Resource|Log)?Attributes\s*,\s*'([^']+)'\s*\)")
_HAS_ATTR = re.compile(r"\bhas_attr\(\s*(\w+\.)?(?:Span|Resource|Log)?Attributes\s*,\s*'([^']+)'\s*\)")
_ATTR_BOUND = re.compile(r"\battr\(\s*(?:\w+\.)?(?:Span|Resource|Log)?Attributes\s*,\s*\$(\w+)\s*\)")
_RUN_OF = re.compile(r"\brun_of\(\s*(\w+\.)?ResourceAttributes\s*\)")
_RUN_PAIR: Final = (
    r"run_pair(attr(\1ResourceAttributes, 'service.instance.id'), attr(\1ResourceAttributes, 'service.version'))"
)
_TS_NS = re.compile(r"\bts_ns\(\s*(\w+\.)?(Timestamp|TimeUnix|StartTimeUnix)\s*\)")
_BIND = re.compile(r"\$(\w+)")
_COMMENT = re.compile(r"--[^\n]*")


def names() -> tuple[str, ...]:
    """The shipped queries, sorted; each is a file `sql/<name>.sql`."""
    folder = resources.files("hubscope.analytics").joinpath("sql")
    return tuple(sorted(f.name.removesuffix(".sql") for f in folder.iterdir() if f.name.endswith(".sql")))


@functools.cache
def source(name: str) -> str:
    """The text of a shipped query as it stands in its file. ConfigError where there is none of that name."""
    if name not in names():
        raise ConfigError(f"there is no shipped query {name!r}", f"one of: {', '.join(names())}")
    return resources.files("hubscope.analytics").joinpath("sql", f"{name}.sql").read_text("utf-8")


def about(name: str) -> str:
    """What a shipped query answers: the first line of its comment."""
    first = source(name).splitlines()[0]
    return first.removeprefix("--").strip()


def for_lake(sql: str) -> str:
    """`sql` with hot attributes and timestamps replaced by the lake's own columns."""

    def column(match: re.Match[str]) -> str:
        hot = HOT_COLUMNS.get(match.group(2))
        return f"{match.group(1) or ''}{hot}" if hot else match.group(0)

    def has_column(match: re.Match[str]) -> str:
        hot = HOT_COLUMNS.get(match.group(2))
        return f"({match.group(1) or ''}{hot} IS NOT NULL)" if hot else match.group(0)

    sql = _RUN_OF.sub(_RUN_PAIR, sql)
    sql = _HAS_ATTR.sub(has_column, sql)
    sql = _ATTR.sub(column, sql)
    return _TS_NS.sub(lambda match: f"{match.group(1) or ''}{match.group(2).removesuffix('Unix')}UnixNano", sql)


def _named(match: re.Match[str], bound: Mapping[str, Any]) -> str:
    """`attr(m, $key)` with a key that has a column spelled out, so that the column is read and not the map."""
    key = bound[match.group(1)]
    return match.group(0).replace("$" + match.group(1), f"'{key}'") if key in HOT_COLUMNS else match.group(0)


def binds_of(sql: str) -> tuple[str, ...]:
    """The names of the values that `sql` binds, without `$`, in order of appearance."""
    return tuple(dict.fromkeys(_BIND.findall(_COMMENT.sub("", sql))))


@dataclasses.dataclass(frozen=True)
class Engine:
    """Runs shipped queries on one connection."""

    connection: duckdb.DuckDBPyConnection
    _kept: dict[tuple[Any, ...], list[dict[str, Any]]] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """All rows of a shipped query as dicts. `values` may hold more names than the query binds."""
        return self.run(source(name), **values)

    def run(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """All rows of `sql`, written as the shipped files are. ConfigError where a value it binds is missing.

        Asked again with the same values the same rows are returned: they are not to be changed.
        """
        wanted = binds_of(sql)
        missing = [name for name in wanted if name not in values]
        if missing:
            raise ConfigError(f"the query needs a value for {', '.join('$' + name for name in missing)}")
        bound = {name: values[name] for name in wanted}
        key = (sql, *bound.items())
        if key not in self._kept:
            named = _ATTR_BOUND.sub(lambda match: _named(match, bound), sql)
            columns, found = fetch(self.connection, for_lake(named), {n: bound[n] for n in binds_of(named)})
            rows = [dict(zip(columns, row, strict=True)) for row in found]
            if len(rows) > KEPT_ROWS:
                return rows
            self._kept[key] = rows
        return self._kept[key]

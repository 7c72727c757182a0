"""What the shipped notebook is written with: a lake to ask, rows that show themselves, and the file itself.

In a notebook:

    from hubscope.analytics.notebook import Lake, bars, by_run
    lake = Lake("/path/to/lake")
    lake.ask("startup_phases").by("phase", "sum_s", how="mean")
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, overload

from markupsafe import Markup

from hubscope.analytics import engine
from hubscope.analytics.connect import connect
from hubscope.analytics.engine import Engine
from hubscope.analytics.fetch import fetch
from hubscope.analytics.model import Report, Trace
from hubscope.analytics.notebook_cells import CELLS
from hubscope.analytics.notebook_plots import bars, by_run
from hubscope.analytics.render import numbers
from hubscope.errors import ConfigError

__all__ = ("Lake", "Rows", "bars", "by_run", "document", "is_edited")

ROWS_SHOWN: Final = 20
_FOREVER_NS: Final = 2**63 - 1
_MIDDLES: Final = ("sum", "mean", "max", "min", "count")


class Rows(Sequence[dict[str, Any]]):
    """The rows of a query: a sequence of dicts that a notebook shows as a table."""

    def __init__(self, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        self.columns = tuple(columns)
        self._rows = list(rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Rows:
        return Rows(self.columns, self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"<{numbers.count(len(self), 'row')}: {', '.join(self.columns)}>"

    def only(self, *columns: str) -> Rows:
        """These columns, in this order. Raises ConfigError for one that is not there."""
        for column in columns:
            self._check(column)
        return Rows(columns, [{column: row[column] for column in columns} for row in self])

    def sorted(self, column: str, largest_first: bool = True) -> Rows:
        """By one column; rows without a value last."""
        self._check(column)
        known = [row for row in self if row[column] is not None]
        known.sort(key=lambda row: row[column], reverse=largest_first)
        return Rows(self.columns, [*known, *(row for row in self if row[column] is None)])

    def by(self, label: str, value: str, how: str = "sum") -> Rows:
        """One row for each `label`: the sum, mean, max, min or count of `value` over its rows, largest first."""
        self._check(label)
        self._check(value)
        if how not in _MIDDLES:
            raise ConfigError(f"how={how!r} is not known", f"one of {', '.join(_MIDDLES)}")
        groups: dict[Any, list[float]] = {}
        for row in self:
            if row[value] is not None:
                groups.setdefault(row[label], []).append(float(row[value]))
        functions = {"sum": sum, "mean": lambda v: sum(v) / len(v), "max": max, "min": min, "count": len}
        rows = [{label: name, value: functions[how](values)} for name, values in groups.items()]  # type: ignore[operator]
        return Rows((label, value), rows).sorted(value)

    def joined(self, other: Rows, on: str, column: str) -> Rows:
        """With `column` of the row in `other` that has the same `on`; None where none has."""
        found = {row[on]: row.get(column) for row in other}
        return Rows((*self.columns, column), [{**row, column: found.get(row[on])} for row in self])

    def _check(self, column: str) -> None:
        if column not in self.columns:
            raise ConfigError(f"there is no column {column!r}", f"the columns are {', '.join(self.columns)}")

    def _repr_html_(self) -> str:
        if not self:
            return "<p>No rows: nothing of this kind was recorded.</p>"
        head = Markup("").join(Markup("<th>{}</th>").format(column) for column in self.columns)
        body = Markup("").join(
            Markup("<tr>{}</tr>").format(
                Markup("").join(Markup("<td>{}</td>").format(_shown(row[c], c)) for c in self.columns)
            )
            for row in self._rows[:ROWS_SHOWN]
        )
        rest = len(self) - ROWS_SHOWN
        more = Markup("<p>and {} more</p>").format(numbers.count(rest, "row")) if rest > 0 else Markup("")
        table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)
        return str(table + more)


class Lake:
    """A lake, as a notebook asks it. `connection` is the plain DuckDB connection of `hubscope.analytics.connect`."""

    def __init__(self, lake: str | os.PathLike[str], service: str | None = None) -> None:
        """`service` None takes the one with the most spans. Raises LakeError where there is no lake."""
        self.path = os.fspath(lake)
        self.connection = connect(lake)
        self.engine = Engine(self.connection)
        found = self.sql("SELECT ServiceName AS service, count(*) AS spans FROM otel_traces GROUP BY 1 ORDER BY 2 DESC")
        self.services = tuple(str(row["service"]) for row in found)
        if service is not None and service not in self.services:
            raise ConfigError(
                f"the lake has no service {service!r}", f"it has {', '.join(self.services) or 'none yet'}"
            )
        self.service = service or (self.services[0] if self.services else "")

    def ask(self, name: str, **values: Any) -> Rows:
        """The rows of a shipped query (`hubscope sql --list`); the service and all of time unless `values` say else."""
        text = engine.source(name)
        given = {"service": self.service, "since_ns": 0, "until_ns": _FOREVER_NS, **values}
        missing = [bind for bind in engine.binds_of(text) if bind not in given]
        if missing:
            raise ConfigError(f"the query {name} needs {', '.join(missing)}", f"ask({name!r}, {missing[0]}=…)")
        return self.sql(engine.for_lake(text), **{bind: given[bind] for bind in engine.binds_of(text)})

    def sql(self, text: str, **values: Any) -> Rows:
        """The rows of any SQL; `$name` in it takes `values`."""
        columns, rows = fetch(self.connection, text, values)
        return Rows(columns, [dict(zip(columns, row, strict=True)) for row in rows])

    def text(self, name: str) -> str:
        """The SQL of a shipped query, as it stands in its file."""
        return engine.source(name)

    def trace(self, trace_id: str) -> Trace:
        """One trace; a notebook shows it as a waterfall."""
        from hubscope.analytics.traces import load_trace

        return load_trace(self.engine, trace_id)

    def report(self, since: datetime | None = None, until: datetime | None = None) -> Report:
        """The report of this service, as `hubscope report` makes it."""
        from hubscope.analytics import report

        return report(self.path, service=self.service or None, since=since, until=until)


def document(lake: str) -> str:
    """The notebook as the text of an .ipynb file, bound to `lake` in its first code cell."""
    cells = []
    for number, (kind, source) in enumerate(CELLS):
        text = source.replace("{lake!r}", repr(lake))
        cell: dict[str, Any] = {"cell_type": kind, "id": f"hubscope-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append({**cell, "source": text.splitlines(keepends=True)})
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "hubscope": {"digest": _digest(cells)},
    }
    found = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def is_edited(text: str) -> bool:
    """Whether the cells of a notebook's text are no longer those that `document` wrote. Outputs do not count."""
    try:
        found = json.loads(text)
        return bool(found["metadata"]["hubscope"]["digest"] != _digest(found["cells"]))
    except (ValueError, KeyError, TypeError):
        return True


def _digest(cells: Sequence[Mapping[str, Any]]) -> str:
    sources = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    return hashlib.sha256(json.dumps(sources, ensure_ascii=False).encode()).hexdigest()


def _shown(value: Any, column: str) -> str:
    if value is None:
        return numbers.UNKNOWN
    if column.endswith("_s") and isinstance(value, int | float):
        return numbers.quantity(float(value), "s")
    if isinstance(value, float):
        return numbers.digits(value)
    if isinstance(value, int) and not isinstance(value, bool) and not column.endswith("_ns"):
        return f"{value:,}"
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"

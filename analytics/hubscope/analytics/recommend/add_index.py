"""An index for a slow query: candidates from its own WHERE and ORDER BY, timed before and after on a copy.

Without the database only the span is known, and no figure is predicted. Slow queries that one index mends, on the same
columns or on the first of them, share one recommendation: predicted for the dearest, with the time of all.
"""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hubscope.analytics.detectors.slow_query import once
from hubscope.analytics.findings import counted, duration
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend import sqlite_copy as sqlite
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommended, together

# An index that is not at least this much faster is not worth what it costs each write.
WORTHWHILE: Final = 0.7


@dataclasses.dataclass(frozen=True)
class Timed:
    """The index that a slow query lacks, timed on a copy."""

    finding: Bottleneck
    database: Path
    columns: tuple[str, ...]
    before_s: float
    after_s: float
    before_plan: tuple[str, ...]
    after_plan: tuple[str, ...]

    @property
    def table(self) -> str:
        return str(self.finding.facts["collection"])

    @property
    def saved_s(self) -> float:
        """What was spent in all operations, by the share that the index spares."""
        spent: float = sum(o["median_s"] * o["count"] for o in self.finding.facts["operations"])
        return spent * (1 - self.after_s / self.before_s)

    def serves(self, other: Timed) -> bool:
        """Whether the other's index is this one, or its first columns: SQLite uses those alone just as well."""
        same = (self.database, self.table) == (other.database, other.table)
        return same and self.columns[: len(other.columns)] == other.columns


def recommend(case: Case) -> Advice:
    tried = [_one(case, finding) for finding in case.of("slow_query")]
    timed = [one for one in tried if isinstance(one, Timed)]
    return together([*(one for one in tried if isinstance(one, Advice)), *(_advice(case, g) for g in _by_index(timed))])


def _by_index(timed: Sequence[Timed]) -> list[list[Timed]]:
    """Grouped by the index that serves them all; the one with the widest index first."""
    groups: list[list[Timed]] = []
    for one in sorted(timed, key=lambda t: (-len(t.columns), -t.saved_s, t.finding.fingerprint)):
        group = next((group for group in groups if group[0].serves(one)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _one(case: Case, finding: Bottleneck) -> Advice | Timed:
    facts = finding.facts
    what = "an index"
    if finding.facts["is_definition"]:
        times = counted(round(facts["count"]), "time")
        because = f"an index speeds up no statement that defines one: it ran {times}; {once(finding.operation)}"
        return not_made(finding, "building it once", because)
    if facts["system"] != "sqlite":
        return not_made(finding, what, f"the database is {facts['system']}; only SQLite can be timed on a copy")
    if not case.databases:
        return not_made(finding, what, "no database was given: --database FILE would let it be timed on a copy")
    text = query_text(case, finding)
    if text is None:
        return not_made(finding, what, "the spans carry no db.query.text")
    path = sqlite.database_of(case.databases, facts["namespace"], text)
    if path is None:
        return not_made(finding, what, "none of the given databases understands the statement")
    try:
        with sqlite.copy_of(path) as copy:
            return _timed(finding, path, copy, text)
    except (OSError, sqlite3.Error, ValueError) as error:
        return not_made(finding, what, f"{path.name}: {error}")


def query_text(case: Case, finding: Bottleneck) -> str | None:
    """The statement with its literals replaced, as its slowest span carries it."""
    for evidence in finding.evidence:
        for span in case.scope.data.engine.rows("trace_spans", trace_id=evidence.trace_id):
            if span["span_id"] in evidence.offender_span_ids:
                text = span["attributes"].get("db.query.text")
                return str(text) if text else None
    return None


def candidates(text: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Indexes worth trying, simplest first: columns compared with =, then the order, then a range or what is read.

    Equality before order before range is the order in which SQLite can use an index's columns (its query planner
    documentation, 1.2); columns inside max() or min() at the end let it answer without the table.
    """
    known = {column.lower(): column for column in columns}

    def matches(pattern: str, part: str) -> list[str]:
        found = (known.get(name.lower()) for name in re.findall(pattern, part, re.IGNORECASE))
        return list(dict.fromkeys(name for name in found if name))

    name = r"""(?:\w+\s*\.\s*)?["`]?([A-Za-z_]\w*)["`]?"""
    equal = matches(name + r"\s*(?:==?|\bIN\s*\(|\bIS)\s*[?'\d]", text)
    ranged = [c for c in matches(name + r"\s*(?:<=?|>=?|\bBETWEEN)\s*[?'\d]", text) if c not in equal]
    orders = re.findall(r"\bORDER\s+BY\s+(.*?)(?:\bLIMIT\b|\)|$)", text, re.IGNORECASE | re.DOTALL)
    ordered = [c for order in orders for c in matches(name, order) if c not in equal]
    inside = [c for c in matches(r"\b(?:max|min|sum|avg)\s*\(\s*" + name, text) if c not in (*equal, *ordered)]
    tried = [
        tuple(equal),
        (*equal, *ordered),
        (*equal, *ranged),
        (*equal, *ordered, *inside),
        tuple(ordered),
    ]
    return list(dict.fromkeys(columns for columns in tried if columns))


def _timed(finding: Bottleneck, path: Path, copy: sqlite3.Connection, text: str) -> Advice | Timed:
    table = finding.facts["collection"]
    columns = sqlite.table_columns(copy, table)
    if not columns:
        raise ValueError(f"it has no table {table!r}")
    values = sqlite.sample_values(copy, table, text, 10, finding.facts["rows_returned"])
    if not values:
        raise ValueError(f"table {table!r} is empty")
    before_plan = sqlite.plan(copy, text, values[0])
    if not sqlite.improvable(before_plan):
        return not_made(finding, "an index", f"the database as given answers it by an index already: {before_plan[0]}")
    before_s = sqlite.median_time_s(copy, text, values)
    best: tuple[float, tuple[str, ...], tuple[str, ...]] | None = None
    for wanted in candidates(text, columns):
        listed = ", ".join(sqlite.quoted(column) for column in wanted)
        copy.execute(f"CREATE INDEX hubscope_candidate ON {sqlite.quoted(table)} ({listed})")
        copy.execute("ANALYZE")
        after_plan = sqlite.plan(copy, text, values[0])
        if any("hubscope_candidate" in line for line in after_plan):
            after_s = sqlite.median_time_s(copy, text, values)
            # A wider index must earn its columns: a tenth faster, or the narrower one stays.
            if best is None or after_s < 0.9 * best[0]:
                best = (after_s, wanted, after_plan)
        copy.execute("DROP INDEX hubscope_candidate")
    if best is None or best[0] > WORTHWHILE * before_s:
        return not_made(finding, "an index", f"no index tried on a copy was worth it (now {duration(before_s)} there)")
    after_s, chosen, after_plan = best
    return Timed(finding, path, chosen, before_s, after_s, before_plan, after_plan)


def _advice(case: Case, group: Sequence[Timed]) -> Advice:
    columns = group[0].columns
    main, *others = sorted(group, key=lambda timed: (-timed.saved_s, timed.finding.fingerprint))
    finding, facts, before_s, after_s = main.finding, main.finding.facts, main.before_s, main.after_s
    dimensions = {"operation": finding.operation, "query": facts["query"]}
    values = sorted(observe(case.scope, "query.duration", dimensions).values())
    now = values[len(values) // 2] if values else facts["median_s"]
    then = now * after_s / before_s
    listed = ", ".join(columns)
    statement = f"CREATE INDEX {main.table}_{'_'.join(columns)} ON {main.table}({listed})"
    scanned = next((line for line in main.before_plan if line.startswith("SCAN ")), main.before_plan[0])
    used = next(line for line in main.after_plan if "hubscope_candidate" in line).replace(" hubscope_candidate", "")
    narrower = f" by an index on its first columns ({', '.join(main.columns)})" if main.columns != columns else ""
    return recommended(
        case,
        finding,
        "add_index",
        change=f"Add an index: {statement}",
        where=f"table {main.table}, for " + " and ".join(_place(timed.finding) for timed in (main, *others)),
        metric="query.duration",
        dimensions=dimensions,
        now=now,
        then=then,
        # The application pays for its own connection, cache and clock: at best as on the copy, at worst the
        # copy's time four times over.
        then_low=min(then, after_s) * 0.5,
        then_high=min(max(then, after_s) * 4, now),
        method=(
            f"timed on a copy of the database: {duration(before_s)} before ({scanned}), {duration(after_s)} "
            f"after ({used}){narrower}; the spans' median scaled by that ratio"
            + "".join(
                f"; {t.finding.facts['query']!r}: {duration(t.before_s)} before, {duration(t.after_s)} after"
                for t in others
            )
        ),
        saved_s=sum(timed.saved_s for timed in group),
        verify=f"EXPLAIN QUERY PLAN shows SEARCH instead of SCAN; query.duration of {facts['query']!r} falls",
        mends=[timed.finding for timed in others],
    )


def _place(finding: Bottleneck) -> str:
    """`'SELECT m #1f' in GET /a, GET /b`."""
    names = (o["operation"] or "no root operation" for o in finding.facts["operations"])
    return f"{finding.facts['query']!r} in {', '.join(names)}"

"""An index for a slow query: candidates from its own WHERE and ORDER BY, timed before and after on a copy.

Without the database only the span is known, and no figure is predicted.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Final

from hubscope.analytics.findings import duration
from hubscope.analytics.metrics import observe
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend import sqlite_copy as sqlite
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommendation, together

# An index that is not at least this much faster is not worth what it costs each write.
WORTHWHILE: Final = 0.7


def recommend(case: Case) -> Advice:
    return together([_one(case, finding) for finding in case.of("slow_query")])


def _one(case: Case, finding: Bottleneck) -> Advice:
    facts = finding.facts
    what = "an index"
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
            return _timed(case, finding, copy, text)
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


def _timed(case: Case, finding: Bottleneck, copy: sqlite3.Connection, text: str) -> Advice:
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
    return _advice(case, finding, before_s, best, before_plan)


def _advice(
    case: Case,
    finding: Bottleneck,
    before_s: float,
    best: tuple[float, tuple[str, ...], tuple[str, ...]],
    before_plan: tuple[str, ...],
) -> Advice:
    after_s, columns, after_plan = best
    facts = finding.facts
    dimensions = {"operation": finding.operation, "query": facts["query"]}
    values = sorted(observe(case.scope, "query.duration", dimensions).values())
    now = values[len(values) // 2] if values else facts["median_s"]
    then = now * after_s / before_s
    listed = ", ".join(columns)
    statement = f"CREATE INDEX {facts['collection']}_{'_'.join(columns)} ON {facts['collection']}({listed})"
    scanned = next((line for line in before_plan if line.startswith("SCAN ")), before_plan[0])
    used = next(line for line in after_plan if "hubscope_candidate" in line).replace(" hubscope_candidate", "")
    return Advice(
        (
            recommendation(
                case,
                finding,
                "add_index",
                change=f"Add an index: {statement}",
                where=f"table {facts['collection']}, for {facts['query']!r} in {finding.operation}",
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
                    f"after ({used}); the spans' median scaled by that ratio"
                ),
                saved_s=(now - then) * facts["count"],
                verify=f"EXPLAIN QUERY PLAN shows SEARCH instead of SCAN; query.duration of {facts['query']!r} falls",
            ),
        )
    )

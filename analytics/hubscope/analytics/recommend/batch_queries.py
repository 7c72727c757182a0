"""One query instead of N: what the loop took, less one query with all rows.

What lies between the loop's queries (awaits, ways to another thread, work for each item) goes with them; how much of it
each item needs in any case no span tells, so the range holds for half of it to stay.

What a row more costs is measured where the database is given (the same statement with IN over as many values, on the
database itself, read-only), else regressed from the spans' returned rows; where neither tells, nothing is predicted.
"""

from __future__ import annotations

import re
import sqlite3
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hubscope.analytics.findings import duration
from hubscope.analytics.metrics import observe, query_loops
from hubscope.analytics.model import Bottleneck
from hubscope.analytics.recommend import sqlite_copy as sqlite
from hubscope.analytics.recommend.add_index import query_text
from hubscope.analytics.recommend.advice import Advice, Case, not_made, recommended, together
from hubscope.analytics.shown import loop_dimensions
from hubscope.analytics.statistics import t_quantile

# SQLite's own limit of bound values in a statement since 3.32; batches are not predicted past it.
MOST_VALUES = 32_766
MEASUREMENTS = (
    9  # the range goes by the third quartile: the slowest of five, on a busy machine, said that nothing is saved
)


METRIC: Final = "query.loop_time_per_operation"
STAYS: Final = 0.5  # of what lies between the queries, at most


def recommend(case: Case) -> Advice:
    return together([_one(case, finding) for finding in case.of("n_plus_one")])


def _one(case: Case, finding: Bottleneck) -> Advice:
    facts = finding.facts
    if facts["kind"] == "write":  # an IN list does not write
        if facts["commits_each"]:
            because = "what each item's own COMMIT takes is in the spans, what one COMMIT of all items takes is not"
        else:
            because = "each item is committed within its own statement, so what the commit takes of it is not known"
        return not_made(finding, "one transaction instead", because)
    dimensions = loop_dimensions(finding)
    values = list(observe(case.scope, METRIC, dimensions).values())
    if not values:
        return not_made(finding, "one query instead", "the operation's queries could not be read")
    now = statistics.median(values)
    loop_s, between_s = _typical_loop(case, finding)
    left = max(now - loop_s, 0.0)
    found = _measured(case, finding) or _regressed(case, finding)
    if found is None:
        because = (
            "every query returned the same number of rows, so what one more row costs is not known, "
            "and no database was given: --database FILE would let it be measured"
        )
        return not_made(finding, "one query instead", because)
    share, share_low, share_high, method = found
    then, low, high = (left + min(s, 1.0) * (loop_s - between_s) for s in (share, share_low, share_high))
    each = round(facts["queries_each"])
    operation = finding.operation or "no root operation"
    return recommended(
        case,
        finding,
        "batch_queries",
        change=f"Fetch the {each} items of {operation} in one query (WHERE … IN (…), or a join).",
        where=f"{facts['parent'] or operation}, query {facts['query']!r}",
        metric=METRIC,
        dimensions=dimensions,
        now=now,
        then=then,
        then_low=low,
        then_high=high + STAYS * between_s,
        method=method + (f", and the {duration(between_s)} between them" if between_s > 0 else ""),
        saved_s=(now - then) * _occurrences(case, finding.operation),
        verify=f"{facts['query']!r} is gone from {operation}, and one query took its place",
    )


def _typical_loop(case: Case, finding: Bottleneck) -> tuple[float, float]:
    """The loop's time in an occurrence of the operation, and what of it lies between its queries: the median run's."""
    runs: dict[str, list[float]] = {}
    occurrences = {
        row["run"]: row["n"] for row in case.scope.rows("root_operations") if row["operation"] == finding.operation
    }
    for row in query_loops(case.scope):
        where = (row["operation"], row["parent"], row["shape"])
        if where == (finding.operation, finding.facts["parent"], finding.facts["query"]):
            sums = runs.setdefault(row["run"], [0.0, 0.0])
            sums[0] += row["sum_s"] / max(occurrences.get(row["run"], 1), 1)
            sums[1] += row["between_s"] / max(occurrences.get(row["run"], 1), 1)
    loop_s = statistics.median(sums[0] for sums in runs.values())
    # The part between, as of all: the median of each alone need not be of one run.
    all_s = sum(sums[0] for sums in runs.values())
    return loop_s, loop_s * sum(sums[1] for sums in runs.values()) / all_s if all_s else 0.0


def _occurrences(case: Case, operation: str) -> int:
    rows = case.scope.rows("root_operations")
    return sum(int(row["n"]) for row in rows if row["operation"] == operation)


Share = tuple[float, float, float, str]  # of the offenders' time that one query takes: likely, least, most; method


_EQUALS = re.compile(r"==?\s*\?")


def in_list(text: str, count: int) -> str | None:
    """The statement for `count` items: its only `= ?` as `IN (?, …)`; None where that is not its shape."""
    if len(_EQUALS.findall(text)) != 1:
        return None
    return _EQUALS.sub("IN (" + ", ".join("?" * count) + ")", text)


def _measured(case: Case, finding: Bottleneck) -> Share | None:
    """Timed on the database: all values one by one on fresh statements, then in one."""
    text = query_text(case, finding)
    each = min(round(finding.facts["queries_each"]), MOST_VALUES)
    if text is None or not case.databases:
        return None
    batched = in_list(text, each)
    path = sqlite.database_of(case.databases, "", text)
    if batched is None or path is None:
        return None
    try:
        connection = sqlite.open_read_only(path)
    except sqlite3.Error:
        return None
    try:
        # No statement cache: an application that opens a connection for each item prepares each time, as spans do.
        values = sqlite.sample_values(connection, finding.facts["collection"], text, each, None)
        if len(values) < each:
            return None
        equals = _EQUALS.search(text)
        assert equals is not None
        place = text[: equals.start()].count("?")
        listed = (*values[0][:place], *(v[place] for v in values), *values[0][place + 1 :])
        ratios = sorted(_one_over_many(connection, text, values, batched, listed) for _ in range(MEASUREMENTS))
    except (sqlite3.Error, ValueError):
        return None
    finally:
        connection.close()
    share = ratios[MEASUREMENTS // 2]
    method = (
        f"timed on the database: {each} values in one query take {share:.0%} of one query each; "
        "the offenders' time by that share"
    )
    return share, ratios[0] * 0.5, min(ratios[MEASUREMENTS * 3 // 4] * 2, 1.0), method


def _one_over_many(
    connection: sqlite3.Connection, text: str, values: Sequence[Sequence[Any]], batched: str, listed: Sequence[Any]
) -> float:
    start = time.perf_counter()
    for number, value in enumerate(values):
        # A comment of its own keeps sqlite3's statement cache from sparing the preparation.
        connection.execute(f"{text} --{number}", tuple(value)).fetchall()
    middle = time.perf_counter()
    connection.execute(batched, tuple(listed)).fetchall()
    return (time.perf_counter() - middle) / max(middle - start, 1e-9)


def _regressed(case: Case, finding: Bottleneck) -> Share | None:
    """Least squares of duration on returned rows over the offenders and the query before them.

    One query costs the intercept and one slope a row; None where rows are not known or do not differ.
    """
    facts = finding.facts
    rows = case.scope.rows("query_rows", shape=facts["query"], other_shape=facts["source_query"] or facts["query"])
    pairs = [(r["returned_rows"], r["duration_s"]) for r in rows if r["returned_rows"] is not None]
    if len(pairs) < 10:
        return None
    x, y = np.array(pairs, dtype=np.float64).T
    spread = float(((x - x.mean()) ** 2).sum())
    if spread == 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean() - slope * x.mean())
    residual = float(((y - intercept - slope * x) ** 2).sum()) / max(len(x) - 2, 1)
    error = t_quantile(0.95, max(len(x) - 2, 1)) * (residual / spread) ** 0.5
    offenders = [(r["returned_rows"] or 0.0, r["duration_s"]) for r in rows if r["shape"] == facts["query"]]
    items = facts["queries_each"] * statistics.fmean(n for n, _ in offenders)
    many_s = (facts["seconds"] - facts["between_seconds"]) / facts["times"]
    one_s = [max(intercept, 0.0) + items * max(s, 0.0) for s in (slope, slope - error, slope + error)]
    method = (
        f"regressed from {len(pairs)} spans: a query costs {duration(max(intercept, 0.0))} and "
        f"{duration(max(slope, 0.0))} a row; one query with {items:.0f} rows instead of "
        f"{facts['queries_each']:.0f} queries"
    )
    return one_s[0] / many_s, one_s[1] / many_s, one_s[2] / many_s, method

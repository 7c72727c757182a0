"""The report end to end over described lakes: each detector fires, just misses, and is silent on A/A data; predictions
meet what a later version shows; every report fits its schema."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hubscope.analytics import compare, connect, lru, report, reporting
from hubscope.analytics.detectors import DETECTORS, regression
from hubscope.analytics.engine import Engine
from hubscope.analytics.findings import PREDICTION_WIDTH, size
from hubscope.analytics.model import Report, Trace, json_schema
from hubscope.analytics.recommend import no_method, whole
from hubscope.analytics.render import html, markdown, outline, text
from hubscope.analytics.scope import Scope
from hubscope.analytics.traces import load_trace
from hubscope.errors import ConfigError, LakeError

# jsonschema.validate() checks the schema itself each time, which took a quarter of these tests.
REPORT_SCHEMA = jsonschema.Draft202012Validator(json_schema("report"))

Describe = Callable[[Any, Any, random.Random], None]


def checked(path: Path, **options: Any) -> Report:
    """A report that fits its schema, and leaves no finding without a prediction or a word on why there is none."""
    made = report(path, **options)
    REPORT_SCHEMA.validate(json.loads(made.to_json()))
    for finding in made.bottlenecks:
        said = [n for n in made.could_not_judge if set(n.for_) & set(finding.fingerprints)]
        predicted = [r for r in made.recommendations if set(r.for_) & set(finding.fingerprints)]
        assert predicted or said, finding.sentence
        assert not said or any(finding.operation in n.what for n in said), finding.sentence
    for advice in made.recommendations:
        low, high = advice.predicted.low, advice.predicted.high
        if low is None or high is None:
            assert (low, high) == (None, None)
            assert "from one run" in advice.predicted.method
            continue
        assert 0 < low <= advice.predicted.saving <= high, advice
        assert high <= PREDICTION_WIDTH * low, advice
    return made


def found(made: Report) -> set[str]:
    return {b.detector for b in made.bottlenecks if b.status == "open"}


def n_plus_one(queries: int, ms: float) -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        items = [lake.query("SELECT * FROM items WHERE id = ?", ms, "items") for _ in range(queries)]
        listing = lake.query("SELECT id FROM lists", 2, "lists", rows=queries)
        run.trace(lake.span("task ask", queries * ms + 20, lake.span("recall", queries * ms + 5, listing, *items)))

    return describe


def wrapped(queries: int, ms: float, name: str = "get_memory m") -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        one = [lake.span(name, ms, lake.query("SELECT * FROM items WHERE id = ?", ms, "items")) for _ in range(queries)]
        run.trace(lake.span("task ask", queries * ms + 20, *one))

    return describe


def loop(body: int, times: int, ms: float) -> Describe:
    """A loop whose body asks `body` different queries, after one that lists."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        texts = [f"SELECT c{i} FROM t{i} WHERE id = ?" for i in range(body)]
        items = [lake.query(text, ms if i == 0 else 0.1, f"t{i}") for _ in range(times) for i, text in enumerate(texts)]
        run.trace(lake.span("task ask", 2000, lake.query("SELECT id FROM lists", 2, "lists", rows=times), *items))

    return describe


def side_by_side(queries: int, ms: float, step_ms: float) -> Describe:
    """Queries of which one starts every `step_ms`, whether or not the one before has ended."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        ask = "SELECT * FROM items WHERE id = ?"
        items = [lake.query(ask, ms, "items", at_ms=1 + i * step_ms) for i in range(queries)]
        run.trace(lake.span("task ask", queries * step_ms + ms + 2, *items))

    return describe


def insert(lake: Any, ms: float) -> Any:
    return lake.query("INSERT INTO m VALUES(?)", ms, "m", rows=None)


def transaction(lake: Any, text: str, ms: float) -> Any:
    return lake.query(text, ms, "", rows=None)


def writes(items: int, ms: float, commit_ms: float, every: int) -> Describe:
    """Items written one by one, and a COMMIT after each `every` of them."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        spans = []
        for i in range(1, items + 1):
            spans.append(insert(lake, ms))
            if i % every == 0:
                spans.append(transaction(lake, "COMMIT", commit_ms))
        run.trace(lake.span("task keep", sum(s.ms for s in spans) + 1, *spans))

    return describe


def writes_without_commit(items: int, ms: float, elsewhere: str = "") -> Describe:
    """Items written one by one in an operation without a COMMIT; the run may have a transaction elsewhere."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.span("task keep", items * ms + 1, *(insert(lake, ms) for _ in range(items))))
        if elsewhere:
            run.trace(lake.span("task end", 20, transaction(lake, elsewhere, 1)))

    return describe


def many_short(queries: int, ms: float, gap_ms: float, stumble_ms: float = 0.0, work: bool = False) -> Describe:
    """Queries with a gap after each, as recording leaves it, or with measured work there; every hundredth stumbles."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        spans, at_ms = [], 0.0
        for i in range(queries):
            took_ms = stumble_ms if stumble_ms and i % 100 == 99 else ms
            spans.append(lake.query("SELECT * FROM items WHERE id = ?", took_ms, "items", at_ms=at_ms))
            if work:
                spans.append(lake.span("lay out", gap_ms, at_ms=at_ms + took_ms))
            at_ms += took_ms + gap_ms
        run.trace(lake.span("task ask", at_ms, *spans))

    return describe


def one_query(ms: float, root_ms: float) -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.span("task browse", root_ms, lake.query("SELECT * FROM m ORDER BY x", ms, "m", rows=5)))

    return describe


def start_query(ms: float, *, in_phase: bool = False, end: str = "exit") -> Describe:
    """A start of 5.6 s that waits for one statement, inside a phase or in none."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        text = lake.query("SELECT * FROM m WHERE a = ?", ms)
        inside = lake.phase("load", ms + 10, text) if in_phase else text
        run.trace(lake.startup(5600, inside, end=end))

    return describe


def start_upsert(ms: float, start_ms: float, end: str = "exit") -> Describe:
    """A start that fills a vector index."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        attributes = {"db.system.name": "usearch", "db.operation.name": "upsert", "db.collection.name": "v"}
        run.trace(lake.startup(start_ms, lake.span("upsert v", ms, attributes=attributes), end=end))

    return describe


def mixed_loops(*each_ms: float) -> Describe:
    """Loops of 30 queries, one after another."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        for ms in each_ms:
            n_plus_one(30, ms)(lake, run, chance)

    return describe


def first_render(ms: float) -> Describe:
    """A start whose first render is told as a span of its own: from process creation on, so it is no part of it."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.startup(ms, lake.span("hub.startup.first_render", ms - 5)))

    return describe


def vector(ms: float) -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.span("task find", ms + 5, lake.search("notes", ms, size=50_000)))

    return describe


def two_indexes(slow_ms: float) -> Describe:
    """One name for an index of 20,000 vectors that is searched exactly and one of 500 that is a graph."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        for _ in range(10):
            run.trace(lake.span("task slow", slow_ms + 5, lake.search("usearch", slow_ms, size=20_000)))
            run.trace(lake.span("task fast", 2, lake.search("usearch", 0.4, size=500, index_type="hnsw")))

    return describe


def start(ms: float, phase_ms: float, import_ms: float, used: bool = False) -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        tree = lake.module_import(
            "pandas", import_ms, lake.module_import("numpy.x", import_ms / 4, used=used), used=used
        )
        shared = lake.module_import("json", 5)
        phase = lake.phase("load", phase_ms, *([tree, shared] if import_ms else [shared]))
        run.trace(lake.startup(ms, phase), gap_ms=50)

    return describe


def imports(*trees: Callable[[Any], Any], ms: float = 1500) -> Describe:
    """A start of `ms` with these imports in one phase."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.startup(ms, lake.phase("load", ms - 200, *(tree(lake) for tree in trees))), gap_ms=50)

    return describe


def module(name: str, ms: float, *inside: Callable[[Any], Any], used: bool | str = False) -> Callable[[Any], Any]:
    return lambda lake: lake.module_import(name, ms, *(one(lake) for one in inside), used=used)


def quota(over: bool, event: bool) -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        ms = 31_000 if over else 29_000
        trace = run.trace(lake.span("task big", ms + 9, lake.plugin("slow", "enrich", ms)))
        if event:
            run.event(
                "hub.quota.violation", trace, hub__plugin__id="slow", hub__plugin__hook="enrich",
                hub__quota__resource="execution", hub__quota__limit=30.0, hub__quota__observed=31.0,
                hub__quota__unit="s", hub__quota__window=0.0, hub__quota__action="observed",
            )  # fmt: skip

    return describe


def overhead(ms: float) -> Describe:
    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        calls = [lake.plugin(f"p{i}", "enrich", ms / 4) for i in range(4)]
        for _ in range(2):  # in three runs six operations, of which five must be seen
            run.trace(lake.span("task ask", 4 * ms, *calls))

    return describe


def cache(
    capacity: int, keys: int, lookups: int = 400, load_ms: float = 2, ask: Callable[[int], int] | None = None
) -> Describe:
    """Look-ups of the keys in turn, or of what `ask` says, in a cache that drops what was used longest ago."""

    def describe(lake: Any, run: Any, chance: random.Random) -> None:
        held: list[int] = []
        names, hits, loads = [], [], []
        for i in range(lookups):
            key = ask(i) if ask else i % keys
            hit = key in held
            names.append(f"{key:016x}")
            hits.append("1" if hit else "0")
            if hit:
                held.remove(key)
            else:
                loads.append(lake.span("load c", load_ms, attributes={"hub.cache.name": "c"}))
            held.append(key)
            del held[:-capacity]
        run.trace(lake.span("task ask", load_ms * len(loads) + 50, *loads))
        run.event(
            "hub.cache.access", hub__cache__name="c", hub__cache__capacity=capacity,
            hub__cache__keys=",".join(names), hub__cache__hits="".join(hits),
        )  # fmt: skip
        for result, n in (("hit", hits.count("1")), ("miss", hits.count("0"))):
            run.sum("hub.cache.requests", n, hub__cache__name="c", hub__cache__result=result)

    return describe


CASES: list[tuple[str, Describe, Describe]] = [
    ("n_plus_one", n_plus_one(5, 11), n_plus_one(4, 15)),
    ("n_plus_one", n_plus_one(30, 2), n_plus_one(30, 1.5)),
    ("n_plus_one", wrapped(6, 10), wrapped(6, 10, "load c")),
    ("n_plus_one", loop(4, 20, 4), loop(5, 20, 4)),
    ("n_plus_one", loop(2, 5, 11), loop(5, 1, 19)),
    ("n_plus_one", mixed_loops(1.4, 1.7, 1.7), mixed_loops(1.55, 1.55, 4)),
    # Queries that run side by side are not in a row.
    ("n_plus_one", side_by_side(12, 9, 9.1), side_by_side(12, 40, 3)),
    ("n_plus_one", side_by_side(12, 9, 8.5), side_by_side(12, 9, 7)),
    # Each item with its own COMMIT, whose time counts, or all in one; autocommit, or a transaction that ends elsewhere.
    ("n_plus_one", writes(30, 0.2, 3, every=1), writes(30, 3, 3, every=30)),
    ("n_plus_one", writes(30, 0.2, 3, every=2), writes(30, 3, 3, every=3)),
    ("n_plus_one", writes_without_commit(40, 3), writes_without_commit(40, 3, "COMMIT")),
    ("n_plus_one", writes_without_commit(40, 3), writes_without_commit(40, 3, "BEGIN IMMEDIATE")),
    ("n_plus_one", writes_without_commit(600, 0.12), writes_without_commit(1_200, 0.05)),
    # Recording stumbles; the loop's typical queries do not take 50 ms.
    ("n_plus_one", many_short(600, 0.1, 0.1), many_short(600, 0.01, 0.1, stumble_ms=19)),
    # Awaits and ways to a thread are the loop's; what is measured there is not, nor a longer pause: a user's, say.
    ("n_plus_one", many_short(300, 0.12, 0.27), many_short(300, 0.12, 3)),
    ("n_plus_one", many_short(300, 0.12, 0.27), many_short(300, 0.12, 0.27, work=True)),
    ("n_plus_one", many_short(300, 0.12, 0.27), many_short(20, 1, 500)),
    ("slow_query", one_query(120, 150), one_query(90, 95)),
    ("slow_query", one_query(80, 150), one_query(40, 150)),
    ("slow_query", start_query(4400), start_query(90)),
    ("slow_phase", start_upsert(47_000, 55_000), start_upsert(10_000, 55_000)),
    ("slow_phase", start_upsert(2_000, 3_100, "interactive"), start_upsert(2_000, 2_900, "interactive")),
    ("slow_phase", start_upsert(2_000, 3_100, "interactive"), first_render(3_100)),
    ("slow_vector_search", vector(60), vector(45)),
    ("slow_vector_search", two_indexes(60), two_indexes(45)),
    ("slow_phase", start(4000, 1500, 0), start(2900, 1500, 0)),
    ("slow_imports", start(1500, 900, 800), start(1500, 900, 90)),
    ("slow_imports", start(1500, 900, 800), start(1500, 900, 800, used=True)),
    # Marks inside an unused package are those of its own import; another package's use is its own.
    (
        "slow_imports",
        imports(module("scipy.stats", 800, module("scipy.sparse", 300, used=True))),
        imports(module("app.views", 800, module("numpy", 780, used=True))),
    ),
    # A private part of a used package can't be left out, and neither can a used package's unused part.
    (
        "slow_imports",
        imports(module("app", 900, module("pint._typing", 800), used=True)),
        imports(module("app", 900, module("app._typing", 800), used=True)),
    ),
    (
        "slow_imports",
        imports(module("a", 400), module("a.b", 400)),
        imports(module("a", 400), module("a.b", 4, used=True)),
    ),
    # Unknown: an extension in an unused package is part of it; alone it is named only where it is a quarter.
    ("slow_imports", imports(module("a", 400, module("a._c", 390, used=""))), imports(module("a._c", 300, used=""))),
    (
        "slow_imports",
        imports(module("a", 1100, used="")),
        imports(module("a", 1100, module("a.b", 9, used=True), used=True)),
    ),
    ("plugin_over_quota", quota(True, True), quota(False, False)),
    ("plugin_over_quota", quota(True, False), quota(False, False)),
    ("plugin_overhead", overhead(60), overhead(45)),
    ("low_cache_hit_rate", cache(5, 20), cache(20, 20)),
    ("low_cache_hit_rate", cache(5, 20), cache(5, 399)),
]


@pytest.mark.parametrize(("detector", "fires", "misses"), CASES)
def test_detectors_fire_and_just_miss(detector: str, fires: Describe, misses: Describe, new_lake: Any) -> None:
    """The case that must fire gives that finding and no other; the near miss does not give it."""
    for describe, fired in ((fires, True), (misses, False)):
        lake = new_lake()
        for _ in range(3):
            run = lake.run()
            describe(lake, run, random.Random(1))
        made = found(checked(lake.write()))
        # A plugin that stays within its 30 s is rightly called overhead then.
        assert made == {detector} if fired else made <= {"plugin_overhead"} - {detector}


def test_every_detector_has_a_case() -> None:
    """What `checked` holds of every finding is held of every detector's; a regression has tests of its own."""
    names = {module.__name__.rpartition(".")[2] for module in map(inspect.getmodule, DETECTORS) if module}
    assert names == {detector for detector, _, _ in CASES}
    assert set(no_method.REASONS) <= {*names, regression.NAME}


@pytest.mark.parametrize(("end", "predicted"), [("interactive", True), ("exit", False)])
def test_what_stands_outside_phases_has_a_prediction_or_a_reason(end: str, predicted: bool, lake: Any) -> None:
    """Of a start that became interactive the excess is predicted to go; a job has no target to be brought to."""
    for i in range(3):
        start_upsert(2_000 + i, 4_100, end)(lake, lake.run("1"), random.Random(1))
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    assert finding.facts["part"] == "upsert v"
    if not predicted:
        (said,) = (n for n in made.could_not_judge if n.for_)
        assert said.what == "what doing less of upsert v would save (hub.startup)"
        return
    (advice,) = made.recommendations
    assert advice.predicted.saving == pytest.approx(1.1, abs=0.01)
    for i in range(3):
        start_upsert(900 + i, 2_990, end)(lake, lake.run("2"), random.Random(1))
    (entry,) = checked(lake.write()).ledger.entries
    assert (entry.observed, entry.covered) == (pytest.approx(1.1), True)


def test_a_told_first_render_changes_no_prediction(new_lake: Any) -> None:
    """What a phase would save is the same whether or not the application says when it rendered first."""
    savings = []
    for told in (False, True):
        lake = new_lake()
        for i in range(3):
            render = [lake.span("hub.startup.first_render", 4_095, at_ms=0)] if told else []
            load = lake.phase("load", 2_000 + i, at_ms=900)
            lake.run().trace(lake.startup(4_100, *render, load))
        (advice,) = checked(lake.write()).recommendations
        assert "100% lies on the critical path" in advice.predicted.method
        savings.append((advice.predicted.low, advice.predicted.saving, advice.predicted.high))
    assert savings[0] == savings[1]


@pytest.mark.parametrize(("name", "grew"), [("hub.startup.first_render", False), ("splash", True)])
def test_self_times_leave_milestones_out(name: str, grew: bool, lake: Any) -> None:
    """A start's own time is what its parts leave of it; the time to the first render is none of them."""
    lake.run().trace(lake.startup(100, lake.span(name, 95, at_ms=0), lake.phase("load", 5, at_ms=0)))
    rows = Engine(connect(lake.write())).rows(
        "operation_self_times", service="hub", operation="hub.startup", since_ns=0, until_ns=2**62
    )
    own = {row["name"]: row["self_s"] for row in rows}
    assert own["hub.startup"] == pytest.approx(0.0 if grew else 0.095)
    assert (name in own) == grew


def test_a_phase_that_is_a_finding_tells_of_its_query(new_lake: Any) -> None:
    """A query in a slow phase is named once, by the phase; in a phase that is no finding it is named itself."""
    for ms, expected in ((4400, {"slow_phase"}), (200, {"slow_query"})):
        lake = new_lake()
        start_query(ms, in_phase=True, end="interactive")(lake, lake.run(), random.Random(1))
        assert found(checked(lake.write())) == expected


def test_the_schemas_are_schemas() -> None:
    """What reports and traces are held against is itself a valid JSON Schema."""
    for name in ("report", "trace"):
        jsonschema.Draft202012Validator.check_schema(json_schema(name))


def test_the_plans_own_finding_reads_well(lake: Any) -> None:
    """A finding's sentence names the operation, the query, the number and the way out; its evidence is the triple."""
    for _ in range(3):
        n_plus_one(30, 4)(lake, lake.run(), random.Random(1))
    (finding,) = checked(lake.write()).bottlenecks
    for part in ("task ask", "SELECT items", "30 times in a row", "one query"):
        assert part in finding.sentence
    (evidence,) = finding.evidence
    assert (len(evidence.parent_span_ids), len(evidence.cause_span_ids), len(evidence.offender_span_ids)) == (1, 1, 30)


def test_a_loop_names_what_listed_its_items(lake: Any) -> None:
    """In a loop of two queries the source is the listing before the loop, not the loop's other query."""
    for _ in range(3):
        loop(2, 20, 5)(lake, lake.run(), random.Random(1))
    (finding,) = checked(lake.write()).bottlenecks
    assert finding.facts["source_collection"] == "lists"
    assert finding.facts["collection"] == "t0"
    assert finding.facts["queries_each"] == 20


@pytest.mark.parametrize(
    ("describe", "parts", "reason"),
    [
        (writes(40, 0.2, 3, every=1), ("40 times in a row, 128 ms", "with its 40 COMMITs"), "one COMMIT of all items"),
        (writes_without_commit(40, 3), ("40 times in a row, 120 ms", "each in a transaction of its own"), "its own"),
    ],
)
def test_repeated_writes_are_told_to_use_one_transaction(
    describe: Describe, parts: tuple[str, ...], reason: str, lake: Any
) -> None:
    """Rows committed one by one are not advised to be fetched in one query, and no saving is made up for them."""
    for _ in range(3):
        describe(lake, lake.run(), random.Random(1))
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    for part in (*parts, "write all items in one transaction."):
        assert part in finding.sentence
    for part in ("fetch", "executemany", "once an item"):
        assert part not in finding.sentence
    assert not made.recommendations
    assert any("one transaction instead" in n.what and reason in n.because for n in made.could_not_judge)


def test_many_rows_a_statement_are_advised_where_each_is_a_way_there_and_back(lake: Any) -> None:
    """Over a connection fewer statements save time as fewer commits do; within the process they hardly would."""
    for _ in range(3):
        spans = [s for _ in range(40) for s in (insert(lake, 1), transaction(lake, "COMMIT", 2))]
        for one in spans:
            one.attributes["db.system.name"] = "postgresql"
        lake.run().trace(lake.span("task keep", 130, *spans))
    (finding,) = checked(lake.write()).bottlenecks
    assert "executemany" in finding.sentence


@pytest.mark.parametrize(
    ("before", "rows", "named"),
    [
        ("SELECT id FROM lists", 20, True),
        ("SELECT id FROM lists", None, True),
        ("SELECT count(*) FROM lists", 1, False),
        ("CREATE TABLE IF NOT EXISTS lists(id)", None, False),
    ],
)
def test_only_what_listed_the_items_is_named_as_their_source(
    before: str, rows: int | None, named: bool, lake: Any
) -> None:
    """A loop comes `after` a SELECT that returned about as many rows; no other statement lists anything."""
    for _ in range(3):
        items = [lake.query("SELECT * FROM items WHERE id = ?", 5, "items") for _ in range(20)]
        lake.run().trace(lake.span("task ask", 120, lake.query(before, 2, "lists", rows=rows), *items))
    (finding,) = checked(lake.write()).bottlenecks
    assert ("once an item" in finding.sentence) == named
    assert bool(finding.facts["source_query"]) == named


def test_two_indexes_of_one_name_are_two(lake: Any) -> None:
    """The figures of a slow exact search are its own; a fast graph of the same name is fine."""
    for _ in range(3):
        two_indexes(214)(lake, lake.run(), random.Random(1))
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    assert "usearch, flat, among 20,000 vectors takes 214 ms, p95 214 ms" in finding.sentence
    (advice,) = made.recommendations
    assert (advice.predicted.now, advice.predicted.then) == (pytest.approx(0.214), pytest.approx(0.05))
    assert "approximate index (HNSW or IVF)" in advice.change
    assert any("usearch (hnsw, 500 vectors)" in fine.what for fine in made.checked_and_fine)


def test_a_search_made_approximate_is_observed(lake: Any) -> None:
    """The index has another type after the advice was followed: its searches tell what was saved."""
    for _ in range(3):
        two_indexes(214)(lake, lake.run("1"), random.Random(1))
    checked(lake.write())
    for _ in range(3):
        run = lake.run("2")
        run.trace(lake.span("task slow", 20, lake.search("usearch", 10, size=20_000, index_type="hnsw")))
        run.trace(lake.span("task fast", 2, lake.search("usearch", 0.4, size=500, index_type="hnsw")))
    (entry,) = checked(lake.write()).ledger.entries
    assert entry.observed == pytest.approx(0.204)


@pytest.mark.parametrize(
    ("index_type", "advised", "not_advised"),
    [
        ("flat", "HNSW or IVF", "ef"),
        ("hnsw", "lower ef", "approximate"),
        ("ivf_pq", "nprobe", "approximate"),
        ("", "fewer candidates", "ef,"),
    ],
)
def test_advice_fits_the_type_of_the_index(index_type: str, advised: str, not_advised: str, lake: Any) -> None:
    """What makes a graph cheaper makes no exact search cheaper, and the other way round."""
    for _ in range(3):
        lake.run().trace(lake.span("task find", 225, lake.search("v", 220, size=20_000, index_type=index_type)))
    (advice,) = checked(lake.write()).recommendations
    assert advised in advice.change
    assert not_advised not in advice.change


@pytest.mark.parametrize(("batch", "severity"), [(12, "low"), (3, "medium"), (1, "high")])
def test_a_batch_is_judged_by_call_and_by_vector(batch: int, severity: str, lake: Any) -> None:
    """A call that is slow by the number of its vectors alone is named as such, and is a small matter."""
    for _ in range(3):
        one = lake.search("v", 216, size=20_000)
        if batch > 1:
            one.attributes["db.operation.batch.size"] = batch
        lake.run().trace(lake.span("task find", 225, one))
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    assert finding.severity == severity
    assert (f"for {batch} vectors at once: {216 / batch:.3g} ms a vector" in finding.sentence) == (batch > 1)
    assert ("a vector, which meets the target;" in finding.sentence) == (batch == 12)
    assert ("Or search fewer than" in made.recommendations[0].change) == (batch > 1)


def test_a_loop_costs_no_more_than_its_operation(lake: Any) -> None:
    """What overlaps counts once, and what ran after the operation ended is none of its time."""
    for _ in range(3):
        side_by_side(20, 9, 8.5)(lake, (run := lake.run()), random.Random(1))
        items = [lake.query("SELECT * FROM items WHERE id = ?", 9, "items") for _ in range(20)]
        run.trace(lake.span("task ask", 100, *items), gap_ms=100)
    (finding,) = checked(lake.write()).bottlenecks
    assert finding.facts["seconds"] == pytest.approx(3 * (0.1 + 19 * 0.0085 + 0.009))


def test_no_finding_costs_more_than_was_observed(lake: Any) -> None:
    """Operations that run side by side lose no more time than passed meanwhile."""
    run = lake.run()
    for _ in range(4):
        start_ns = run.now_ns
        n_plus_one(300, 10)(lake, run, random.Random(1))
        run.now_ns = start_ns + 1_000_000
    (finding,) = checked(lake.write()).bottlenecks
    assert finding.facts["seconds"] == pytest.approx(12)
    assert finding.impact.observed_seconds == finding.impact.observed_for_seconds == pytest.approx(3.023)


@pytest.mark.parametrize(("describe", "said"), [(many_short(600, 0.1, 0.1), True), (n_plus_one(30, 4), False)])
def test_a_loop_says_what_recording_it_takes(describe: Describe, said: bool, lake: Any) -> None:
    """A finding whose spans cost 30 % or more of its time to record says how much that may be."""
    for _ in range(3):
        describe(lake, lake.run(), random.Random(1))
    (finding,) = checked(lake.write()).bottlenecks
    assert ("120 ms were recorded, of which 35.9 ms is measuring" in finding.sentence) == said


@pytest.mark.parametrize("ended", [True, False])
def test_a_sentence_has_a_subject_where_the_root_never_came(ended: bool, lake: Any) -> None:
    """A program that is killed within its task sends the queries and not the task."""
    for _ in range(3):
        n_plus_one(30, 4)(lake, lake.run(), random.Random(1))
    if not ended:
        rows = lake.rows["otel_traces"]
        rows[:] = [row for row in rows if row["SpanName"] not in ("task ask", "recall")]
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    subject = "task ask" if ended else "An operation whose root span never came"
    assert finding.sentence.startswith(f"{subject} runs 'SELECT items")
    assert not any("()" in note.what for note in made.could_not_judge)


@pytest.mark.parametrize("at", ["callee", "edge"])
def test_a_slow_callee_and_a_slow_way_to_it_are_told_apart(at: str, lake: Any) -> None:
    """Where another service answers, its own time and the wait for it both lead to it, and the sentence says which."""
    for version, more in (("1", 0), ("2", 80)):
        for i in range(4):
            run, other = lake.run(version), lake.run(version, service="store", instance=f"store-{version}{i}")
            for _ in range(5):
                answer = lake.span("GET /item", 20 + (more if at == "callee" else 0), kind="Server", at_ms=2)
                answer.service = other
                call = lake.span("GET", 25 + more, answer, kind="Client")
                run.trace(lake.span("task ask", 40 + more + i / 10, lake.span("prepare", 5), call))
    made = checked(lake.write(), service="hub")
    (finding,) = [b for b in made.bottlenecks if b.detector == "regression"]
    assert finding.facts["grew_most"] == "GET /item"
    assert finding.facts["grew_most_service"] == "store"
    assert ("waiting for" in finding.sentence) == (at == "edge")


def test_fingerprints_do_not_depend_on_runs(new_lake: Any) -> None:
    """Two lakes with other ids and other figures give the same fingerprint."""
    prints = []
    for ms in (4, 7):
        lake = new_lake()
        for _ in range(ms):
            n_plus_one(30, ms)(lake, lake.run(), random.Random(1))
        prints.append(checked(lake.write()).bottlenecks[0].fingerprint)
    assert prints[0] == prints[1]


@pytest.mark.parametrize("seed", range(6))
def test_the_same_program_twice_is_silent(seed: int, lake: Any) -> None:
    """Two versions of one noisy program, healthy in every detector's eyes: no finding, nothing better or worse.

    Six silent reports alone bound the rate of false alarms below 39 % only (binomial, 95 %); test_statistics bounds the
    comparisons below 4 %. These hold the detectors to silence on noise.
    """
    chance = random.Random(seed)
    for version in ("1", "2"):
        for _ in range(4):
            run = lake.run(version)
            pace = chance.lognormvariate(0, 0.08)
            start(700 * pace, 300 * pace, 90 * pace)(lake, run, chance)
            for _ in range(6):
                jitter = pace * chance.lognormvariate(0, 0.2)
                n_plus_one(4, 5 * jitter)(lake, run, chance)
                vector(20 * jitter)(lake, run, chance)
                overhead(20 * jitter)(lake, run, chance)
    made = checked(lake.write())
    assert found(made) == set()
    assert {c.verdict for c in made.comparisons} <= {"same", "unknown"}
    assert made.comparisons


def test_a_slower_version_is_a_regression_with_its_place(lake: Any) -> None:
    """An operation that got slower is worse, a finding, and the span that grew is named."""
    for version, slow in (("1", 10), ("2", 60)):
        for i in range(4):
            run = lake.run(version)
            for _ in range(5):
                steady = lake.span("render page", 15)
                run.trace(
                    lake.span("GET /", 30 + slow + i / 10, lake.span("read settings", slow), steady, kind="Server")
                )
    made = checked(lake.write())
    (finding,) = [b for b in made.bottlenecks if b.detector == "regression"]
    assert "read settings" in finding.sentence
    (verdict,) = [c.verdict for c in made.comparisons if c.metric == "root.duration"]
    assert verdict == "worse"
    assert compare(lake.path, "1", "2")[0].verdict == "worse"
    groups = compare(lake.path, "run-000,run-001,run-002", "run-003", by="instance")
    assert {c.verdict for c in groups} == {"unknown"}


@pytest.mark.parametrize(("slower_ms", "detectors"), [(0, ["n_plus_one"]), (400, ["n_plus_one", "regression"])])
def test_a_loop_that_was_added_is_one_finding(slower_ms: float, detectors: list[str], lake: Any) -> None:
    """The loop says what to change; a regression stands beside it only where more was added than the loop takes."""
    for version, queries in (("1", 1), ("2", 40)):
        for i in range(4):
            run = lake.run(version)
            for _ in range(5):
                children = [lake.query("SELECT a FROM m WHERE id = ?", 4, "m") for _ in range(queries)]
                more_ms = slower_ms if version == "2" else 0.0
                run.trace(lake.span("GET /", 20 + 4 * queries + more_ms + i / 10, *children, kind="Server"))
    made = checked(lake.write())
    assert sorted(b.detector for b in made.bottlenecks if b.operation == "GET /") == detectors


@pytest.mark.parametrize(
    ("before_ms", "after_ms", "verdict"),
    [(0.035, 0.095, "unknown"), (0.2, 0.3, "unknown"), (0.05, 0.4, "worse"), (1, 2, "worse"), (2, 1, "better")],
)
def test_what_a_sleeping_processor_costs_is_no_verdict(
    before_ms: float, after_ms: float, verdict: str, lake: Any
) -> None:
    """35 µs that became 95 after a new pause are no regression; 1 ms that became 2 is, and so is 50 µs at 400."""
    for version, ms in (("1", before_ms), ("2", after_ms)):
        for i in range(5):
            run = lake.run(version)
            for _ in range(3):
                query = lake.query("SELECT a FROM m WHERE id = ?", ms * (1 + i / 100), "m")
                run.trace(lake.span("task ask", 5 + i / 100, query))
    compared = {c.metric: c for c in compare(lake.write(), "1", "2")}
    assert compared["query.duration"].verdict == verdict
    assert ("a processor that slept" in compared["query.duration"].reason) is (verdict == "unknown")
    assert compared["root.duration"].verdict == "same"


@pytest.mark.parametrize(
    ("loops", "slow_ms", "verdict"),
    [
        ((100, 1), (40, 40), "unknown"),  # a loop mended: p95 rises to that of the other query
        ((1, 100), (40, 40), "unknown"),  # a loop added: it falls
        ((100, 1), (40, 4), "unknown"),  # every query that both have got faster; p95 rose all the same
        ((1, 1), (40, 80), "worse"),
        ((1, 1), (80, 40), "better"),
        ((20, 10), (40, 80), "worse"),  # the mix changed and a query with it
        ((100, 100), (40, 40), "same"),
    ],
)
def test_a_kpi_over_a_mixture_has_a_verdict_of_its_kinds(
    loops: tuple[int, int], slow_ms: tuple[float, float], verdict: str, lake: Any
) -> None:
    """What pools queries is better or worse where a query is, not where there are more or fewer of the short ones."""
    for version, items, ms in zip("12", loops, slow_ms, strict=True):
        for i in range(5):
            run = lake.run(version)
            for _ in range(4):
                pace = 1 + i / 1000
                short = [lake.query("SELECT a FROM m WHERE id = ?", 0.3 * pace, "m") for _ in range(items)]
                run.trace(lake.span("task ask", 200, *short, lake.query("SELECT b FROM n", ms * pace, "n")))
    (told,) = [c for c in compare(lake.write(), "1", "2") if c.dimensions.get("kpi") == "memory.query_time"]
    assert told.verdict == verdict
    assert told.reason.startswith("the mix changed: ") is (verdict == "unknown")


def test_operations_of_one_version_alone_are_named(lake: Any) -> None:
    """What every run of one version has and no run of the other is new, or gone; what some runs have may be chance."""
    for version, names in (("1", ("old way", "both")), ("2", ("both", "brand new"))):
        for i in range(3):
            run = lake.run(version)
            for name in (*names, *(("seldom",) if version == "2" and i == 0 else ())):
                run.trace(lake.span(f"task {name}", 12))
    made = checked(lake.write())
    told = {c.dimensions["operation"]: c for c in made.comparisons if c.metric == "root.duration"}
    verdicts = {name: c.verdict for name, c in told.items()}
    assert verdicts == {"task old way": "gone", "task both": "same", "task brand new": "new", "task seldom": "unknown"}
    new = told["task brand new"]
    assert (new.before, new.after, new.change, new.runs_before, new.runs_after) == (None, 0.012, None, 0, 3)
    assert told["task seldom"].reason == "only 2 has it, in 1 of 3 runs"
    for page in (text.render(made), markdown.render(made), html.render(made)):
        said = " ".join(page.split()).lower()
        assert "new in version 2: task brand new (12 ms)" in said
        assert "gone since version 1: task old way (12 ms)" in said
    assert "version 1 (3 runs) against version 2 (3 runs)" in text.render(made)


def test_predictions_meet_the_next_version(lake: Any) -> None:
    """Predictions made on version 1 are kept, and stand beside what version 2 shows, covered, with the error."""
    for i in range(3):
        run = lake.run("1")
        start(1500 + i, 900, 800)(lake, run, random.Random(1))
        cache(5, 20)(lake, run, random.Random(1))
    first = checked(lake.write())
    assert {r.predicted.metric for r in first.recommendations} == {
        "startup.package_import_time",
        "cache.load_time_per_lookup",
    }
    assert first.ledger.predictions == 2
    assert first.ledger.observed == 0
    kept = (lake.path / "ledger.jsonl").read_bytes()
    for i in range(3):
        run = lake.run("2")
        start(700 + i, 100, 0)(lake, run, random.Random(1))
        cache(20, 20)(lake, run, random.Random(1))
    second = checked(lake.write())
    assert (lake.path / "ledger.jsonl").read_bytes() == kept
    assert second.ledger.observed == 2
    assert second.ledger.covered == 2
    assert second.ledger.mean_absolute_percentage_error is not None
    assert second.ledger.mean_absolute_percentage_error < 0.05  # a share, as everywhere
    assert {b.status for b in second.bottlenecks} == {"resolved"}
    assert all(r.status == "resolved" for r in second.recommendations)


def test_a_used_package_is_not_claimed_with_what_brought_it(lake: Any) -> None:
    """numpy under an unused package is not charged to it where numpy is used; an unused companion is."""
    tree = module(
        "scipy.stats", 900, module("numpy", 300, used=True), module("scipy._lib", 90, used=True), module("ply", 50)
    )
    for _ in range(3):
        imports(tree)(lake, lake.run(), random.Random(1))
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    assert finding.facts["packages"] == ["ply", "scipy"]
    assert finding.facts["seconds"] == pytest.approx(0.6)
    assert made.recommendations[0].predicted.saving == pytest.approx(0.6)


def test_an_import_of_unknown_use_is_named_without_a_saving(lake: Any) -> None:
    """The dearest import of a start does not vanish because nothing tells whether it is needed."""
    for _ in range(3):
        imports(module("slowmod", 1120, used=""), module("json", 20, used=True))(lake, lake.run(), random.Random(1))
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    assert "slowmod takes 1.12 s" in finding.sentence
    assert "can't be known" in finding.sentence
    assert not made.recommendations
    assert any("import slowmod" in n.what and "can't be known" in n.because for n in made.could_not_judge)


@pytest.mark.parametrize("backwards", [False, True])
def test_no_recorded_import_is_a_value(backwards: bool, lake: Any) -> None:
    """Versions whose imports all fell below the recording threshold are compared with ones that had dear imports."""
    for version in ("1", "2"):
        for i in range(4):
            dear = (version == "1") != backwards
            trees = [module("pandas", 500 + 5 * i)] if dear else []
            imports(*trees)(lake, lake.run(version), random.Random(1))
    lake.write()
    (made,) = [c for c in compare(lake.path, "1", "2") if c.metric == "startup.import_total"]
    assert (made.runs_before, made.runs_after) == (4, 4)
    assert made.verdict == ("worse" if backwards else "better")


def test_one_cause_in_several_versions_is_told_once(new_lake: Any) -> None:
    """Three versions with one cause: one recommendation, of the newest's evidence; mended, one score: the last one's.
    Two causes, the near miss, are two."""
    lake = new_lake()
    for version, ms in (("1", 2000), ("1b", 2200), ("2", 2400)):
        for i in range(3):
            start(ms + 2000 + i, ms, 0)(lake, lake.run(version), random.Random(1))
        made = checked(lake.write())
        (finding,), (advice,) = made.bottlenecks, made.recommendations
        assert (finding.version, advice.version, advice.for_) == (version, version, (finding.fingerprint,))
        assert advice.predicted.now == pytest.approx(ms / 1000)
    assert (made.ledger.predictions, [e.made_on for e in outline.told_entries(made)]) == (3, ["1b"])
    for i in range(3):
        start(2500 + i, 10, 0)(lake, lake.run("3"), random.Random(1))
    made = checked(lake.write())
    assert [r.version for r in made.recommendations] == ["2"]
    assert (made.ledger.predictions, made.ledger.observed) == (3, 1)
    assert [e.made_on for e in made.ledger.entries if e.observed is not None] == ["2"]
    lake = new_lake()
    for version in ("1", "2"):
        for i in range(3):
            run = lake.run(version)
            start(4000 + i, 2000, 0)(lake, run, random.Random(1))
            cache(5, 20)(lake, run, random.Random(1))
    assert [r.version for r in checked(lake.write()).recommendations] == ["2", "2"]


@pytest.mark.parametrize(("first_ms", "later_ms", "status"), [(240, 4, "resolved"), (52, 46, "unconfirmed")])
def test_a_plugin_that_compare_calls_better_is_mended(first_ms: float, later_ms: float, status: str, lake: Any) -> None:
    """Plugin overhead is mended where the dearest plugin's time a call is better; not where it slipped under 50 ms."""
    for version, ms in (("1", first_ms), ("2", later_ms)):
        for i in range(4):
            run = lake.run(version)
            for at in range(3):
                one, two = lake.plugin("slow", "render", ms + (i - at) * ms / 50), lake.plugin("fast", "render", 1)
                run.trace(lake.span("task draw", 2 * ms, one, two))
    made = checked(lake.write())
    (finding,) = [b for b in made.bottlenecks if b.detector == "plugin_overhead"]
    better = {c.metric for c in made.comparisons if c.verdict == "better"}
    assert ("plugin.time_per_call" in better) == (status == "resolved")
    assert finding.status == status


@pytest.mark.parametrize(
    ("statement", "is_definition"), [("CREATE INDEX a ON memories(b)", True), ("SELECT * FROM memories", False)]
)
def test_a_statement_that_defines_an_index_gets_no_advice_on_indexes(
    statement: str, is_definition: bool, lake: Any
) -> None:
    """It is told to run once; the near miss, a query as slow, is told of an index."""
    for _ in range(3):
        lake.run().trace(lake.startup(2000, lake.query(statement, 300)))
    made = checked(lake.write())
    (finding,) = [b for b in made.bottlenecks if b.detector == "slow_query"]
    told = finding.sentence + outline.why_unpredicted(made, finding)
    assert ("3 times in 3 runs: build it once, not at each start" in told) == is_definition
    assert ("missing index" in told or "--database" in told) != is_definition


@pytest.mark.parametrize(("starts_ms", "fine"), [((600, 650, 700), True), ((500, 600, 40_000), False)])
def test_a_start_is_fine_only_where_its_kpi_is_judged(starts_ms: tuple[float, ...], fine: bool, lake: Any) -> None:
    """A median under the target is not "fine" beside a KPI that is too close to call."""
    for ms in starts_ms:
        lake.run().trace(lake.startup(ms, lake.phase("load", 100)))
    made = checked(lake.write())
    assert any(c.what == "cold start" for c in made.checked_and_fine) == fine
    assert any(n.what == "KPI startup.cold" for n in made.could_not_judge) != fine


def test_what_goes_wholly_is_gone(lake: Any) -> None:
    """A phase that must vanish for the start to meet its target is said to be gone; one that may stay has a limit."""
    for i in range(3):
        lake.run().trace(
            lake.startup(9000 + i, lake.phase("a", 4000), lake.phase("b", 4500), lake.phase("c", 100)), gap_ms=9
        )
    (one, two) = checked(lake.write()).recommendations
    assert {outline.then(r) for r in (one, two)} == {"gone"}
    assert all(r.verify.endswith("is gone") and "0 µs" not in r.predicted.method for r in (one, two))
    kept = dataclasses.replace(one.predicted, then=0.5)
    assert outline.then(dataclasses.replace(one, predicted=kept)) == "500 ms"


def test_what_was_not_saved_did_not_come_true(lake: Any) -> None:
    """The finding is gone but the time is the same or uncertain: the prediction stays open and the record untouched."""
    for version in ("1", "2"):
        for i in range(3):
            # A plugin over its quota whose time a version later is within it, and varies more than it fell.
            slow = (31_000, 90_000, 60_000)[i] if version == "1" else (29_000, 29_500, 29_900)[i]
            lake.run(version).trace(lake.span("task big", slow + 9, lake.plugin("slow", "enrich", slow)))
        made = checked(lake.write())
    (entry,) = [e for e in made.ledger.entries if e.made_on == "1" and e.metric == "plugin.time_per_call"]
    assert (entry.observed_on, entry.observed, entry.covered) == ("2", None, None)
    assert entry.reason.startswith("not seen to have come true: 3 runs of 1 against 3 of 2 show a saving of 30.5 s (")
    assert (made.ledger.observed, made.ledger.mean_absolute_percentage_error) == (0, None)
    (finding,) = [b for b in made.bottlenecks if b.detector == "plugin_over_quota"]
    assert finding.status == "unconfirmed"
    for page in (text.render(made), markdown.render(made), html.render(made)):
        said = " ".join(page.split())
        assert "not seen to have come true: 3 runs of 1 against 3 of 2 show a saving" in said
        assert "1 not seen to have come true on a later version." in said
        assert "Mended" not in said


@pytest.mark.parametrize(
    ("later_ms", "status"),
    [((96, 98, 97, 99), "unconfirmed"), ((80, 75, 70, 78), "unconfirmed"), ((3, 3, 4, 3), "resolved")],
)
def test_a_query_that_slipped_under_its_target_is_not_mended(later_ms: Any, status: str, lake: Any) -> None:
    """A quieter machine brings a p95 under its target; only a fall that no machine explains mends the query."""
    for version, times in (("1", (120, 101, 110, 104)), ("2", later_ms)):
        for ms in times:
            lake.run(version).trace(lake.span("task browse", ms + 2, lake.query(BROWSE, ms, "m", rows=20)))
    made = checked(lake.write())
    (finding,) = [b for b in made.bottlenecks if b.detector == "slow_query" and b.version == "1"]
    assert finding.status == status
    for page in (text.render(made), markdown.render(made), html.render(made)):
        assert ("Mended since version 1" in page) is (status == "resolved")
        assert ("Not found again since version 1, not shown to be mended" in " ".join(page.split())) is (
            status != "resolved"
        )


@pytest.mark.parametrize(("gone", "observed"), [(True, 1), (False, 0)])
def test_an_import_that_left_the_start_came_true_in_one_run(gone: bool, observed: int, lake: Any) -> None:
    """Of one run of the later version an import that is gone is proof; one that is merely quicker is none."""
    for ms in (800, 810, 790):
        imports(module("pandas", ms))(lake, lake.run("1"), random.Random(1))
    checked(lake.write())
    imports(*([] if gone else [module("pandas", 90)]))(lake, lake.run("2"), random.Random(1))
    made = checked(lake.write())
    assert made.ledger.observed == made.ledger.covered == observed
    (finding,) = made.bottlenecks
    assert finding.status == ("resolved" if gone else "unconfirmed")


@pytest.mark.parametrize(("later", "status"), [(1, "resolved"), (4, "unconfirmed")])
def test_a_loop_is_mended_when_its_statement_is_no_longer_repeated(later: int, status: str, lake: Any) -> None:
    """A loop of 30 that became one query is mended by one run; one over four items is the same loop over fewer."""
    for version, queries in (("1", 30), ("2", later)):
        n_plus_one(queries, 4)(lake, lake.run(version), random.Random(1))
    (finding,) = checked(lake.write()).bottlenecks
    assert (finding.version, finding.status) == ("1", status)


@pytest.mark.parametrize(("runs", "kept"), [(1, 0), (2, 1)])
def test_one_run_gives_an_estimate_that_is_not_kept(runs: int, kept: int, lake: Any) -> None:
    """The first report ranks what one run shows, without a range and without freezing it; a second run gives both."""
    for ms in (800, 810)[:runs]:
        imports(module("pandas", ms), module("scipy", 2 * ms), ms=4000)(lake, lake.run("1"), random.Random(1))
    made = checked(lake.write())
    assert [r.change.split()[1] for r in made.recommendations] == ["scipy", "pandas"]
    assert all((r.predicted.low is None) is (kept == 0) for r in made.recommendations)
    assert (made.ledger.predictions, (lake.path / "ledger.jsonl").exists()) == (2 * kept, bool(kept))
    for page in (text.render(made), markdown.render(made), html.render(made)):
        assert ("one run: no range" in page) is (kept == 0)
        assert ("two more runs give it a range" in " ".join(page.split())) is (kept == 0)


def test_a_lazy_import_says_in_which_module_it_stands(lake: Any) -> None:
    """The module around the import is named, with the word that its file may be a third party's."""
    tree = module("datasette.app", 900, module("pandas", 700), used=True)
    imports(tree, module("scipy", 600), ms=3000)(lake, lake.run(), random.Random(1))
    inside, alone = (r.where for r in checked(lake.write()).recommendations)
    assert "inside that of datasette.app (if datasette is an installed package" in inside
    assert "inside no other that was recorded" in alone


def test_a_saving_below_zero_is_said_in_its_unit() -> None:
    """An interval that reaches below zero reads like one above it."""
    assert [size(seconds, "s") for seconds in (-2.5, -0.00799, -8e-6)] == ["-2.5 s", "-7.99 ms", "-8 µs"]


def test_a_removal_saves_something_however_unlike_two_runs_are(lake: Any) -> None:
    """Durations have ranges by a factor, so two unlike runs give a wide range above 0, never a negative saving."""
    for ms in (600, 800):
        imports(module("scipy.stats", ms), ms=2500)(lake, lake.run(), random.Random(1))
    (advice,) = checked(lake.write()).recommendations
    p = advice.predicted
    assert 0 < p.low < p.saving < p.high
    assert p.saving / p.low == pytest.approx(p.high / p.saving)


def test_no_saving_is_more_than_the_start_it_is_part_of(lake: Any) -> None:
    """By the spread of three imports one could save 1.53 s; no start took more than 1.5."""
    for ms in (800, 900, 1450):
        imports(module("scipy.stats", ms), ms=1500)(lake, lake.run(), random.Random(1))
    (advice,) = checked(lake.write()).recommendations
    assert advice.predicted.saving == pytest.approx(0.9)
    assert advice.predicted.high == pytest.approx(1.5)


def test_every_prediction_knows_its_whole(new_lake: Any, tmp_path: Path) -> None:
    """Each metric that something is predicted in has a longest whole, and no prediction exceeds it."""
    seen = set()
    path = database(tmp_path / "hub.db", 20_000)
    text = "SELECT body FROM m WHERE owner = ? ORDER BY x LIMIT ?"

    def browse(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.span("task browse", 150, lake.query(text, 120, "m", rows=20)))

    def loop(lake: Any, run: Any, chance: random.Random) -> None:
        items = [lake.query("SELECT body FROM m WHERE id = ?", 1, "m") for _ in range(100)]
        run.trace(lake.span("task ask", 120, *items))

    def enrich(lake: Any, run: Any, chance: random.Random) -> None:
        run.trace(lake.span("task big", 91_000, lake.plugin("slow", "enrich", 90_000)))

    starts = (start_upsert(2_000, 4_100, "interactive"), start(4000, 1500, 0), start(1500, 900, 800))
    for describe in (browse, loop, enrich, *starts, vector(90), cache(5, 20)):
        lake = new_lake()
        for _ in range(3):
            describe(lake, lake.run(), random.Random(1))
        for advice in checked(lake.write(), databases=[path]).recommendations:
            p = advice.predicted
            data = reporting._data(str(lake.path), None, None, None, "512MB", 1)
            (scope,) = [Scope(data, "hub", name, runs) for name, runs in data.versions("hub").items()]
            longest = whole.longest_s(scope, p.metric, p.dimensions)
            data.engine.connection.close()
            assert longest is not None, p.metric
            assert p.high <= longest, p
            seen.add(p.metric)
    assert seen == set(whole._WHOLES)


def test_what_two_unlike_runs_leave_open_is_not_predicted(lake: Any) -> None:
    """A range of more than ten is no prediction and freezes none; it says so, and with a third run it is made."""
    for ms in (400, 1500):
        imports(module("scipy.stats", ms), ms=1800)(lake, lake.run(), random.Random(1))
    made = checked(lake.write())
    assert made.recommendations == ()
    assert not (lake.path / "ledger.jsonl").exists()
    (said,) = (n for n in made.could_not_judge if n.for_)
    assert "what it would save: Import scipy.stats where it is first used" in said.what
    assert said.because.startswith("only 2 runs of version 1 show it, and they leave room for anything from ")
    assert said.because.endswith(" to 1.8 s: one more run would narrow it")
    for page in (text.render(made), markdown.render(made), html.render(made)):
        assert "one more run would narrow it" in " ".join(page.split())
    for ms in (1000, 900):
        imports(module("scipy.stats", ms), ms=1800)(lake, lake.run(), random.Random(1))
    (advice,) = checked(lake.write()).recommendations
    assert advice.predicted.saving == pytest.approx(0.95)
    assert (lake.path / "ledger.jsonl").exists()


def test_one_slow_run_does_not_hide_what_a_larger_cache_saves(lake: Any) -> None:
    """How slow each run was is counted once, in the spread of the runs, so what is left of it holds."""
    for load_ms in (2, 2.2, 2.4, 6):
        cache(5, 20, 100, load_ms=load_ms)(lake, lake.run("1"), random.Random(1))
    (advice,) = checked(lake.write()).recommendations
    assert advice.predicted.saving == pytest.approx(0.8 * 2.3e-3)
    for load_ms in (2, 2.2, 2.4):
        cache(20, 20, 100, load_ms=load_ms)(lake, lake.run("2"), random.Random(1))
    (entry,) = checked(lake.write()).ledger.entries
    assert entry.covered is True


@pytest.mark.parametrize(("later", "observed"), [(1000, 1), (20, 0)])
def test_a_cache_of_which_half_the_misses_stay_has_a_prediction(later: int, observed: int, lake: Any) -> None:
    """With 100 keys in 150 look-ups half the misses are first ones; what the others take is predicted, and comes true
    where the cache grew. The same program again leaves the prediction open."""
    for version, capacity in (("1", 20), ("2", later)):
        for _ in range(3):
            run, chance = lake.run(version), random.Random(7)
            cache(capacity, 0, 150, load_ms=4, ask=lambda _, chance=chance: chance.randrange(100))(lake, run, chance)
        made = checked(lake.write())
    (first,) = [e for e in made.ledger.entries if e.made_on == "1"]
    assert first.predicted_low < first.predicted < first.predicted_high
    assert (made.ledger.observed, made.ledger.covered) == (observed, observed)
    if observed:
        assert first.predicted == pytest.approx(first.observed, rel=0.05)  # 99 % of the hits


def test_a_saving_that_may_be_none_is_not_predicted(lake: Any) -> None:
    """A range that reaches down to no saving is no prediction; one by the method asks for no more runs."""
    for _ in range(3):
        # Packages that came along may be used by others: where nothing is scipy's own time, all of it may stay.
        imports(module("scipy.stats", 800, module("ply", 800)))(lake, lake.run(), random.Random(1))
    made = checked(lake.write())
    assert made.recommendations == ()
    (said,) = (n for n in made.could_not_judge if n.for_)
    assert "Import scipy.stats where it is first used" in said.what
    assert said.because == "what was measured of it leaves room for no saving at all"


def test_a_loop_is_described_by_every_time_it_ran(lake: Any) -> None:
    """The typical loop past 50 ms makes the finding; its median, its share and its count are of the cheap ones too."""
    for _ in range(3):
        run = lake.run()
        for ms in (0.5, 0.5, 2, 2, 8):
            n_plus_one(30, ms)(lake, run, random.Random(1))
    (finding,) = checked(lake.write()).bottlenecks
    assert finding.facts["times"] == 15
    assert finding.facts["seconds"] == pytest.approx(3 * 0.390)
    assert "60 ms (up to 240 ms) each time" in finding.sentence
    assert finding.impact.share_of_kpi == pytest.approx(390 / 490)


def test_a_change_not_made_is_not_observed(lake: Any) -> None:
    """A later version with the same cause leaves the prediction open and says why."""
    for version in ("1", "2"):
        for i in range(3):
            start(1500 + i, 900, 800)(lake, lake.run(version), random.Random(1))
    made = checked(lake.write())
    entry = next(e for e in made.ledger.entries if e.made_on == "1")
    assert entry.observed is None
    assert "has not been made" in entry.reason


def database(path: Path, rows: int) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE m (id INTEGER PRIMARY KEY, owner TEXT, x REAL, body TEXT)")
        connection.executemany(
            "INSERT INTO m(owner, x, body) VALUES (?, ?, ?)", ((f"o{i % 500}", i, "b" * 400) for i in range(rows))
        )
    connection.close()
    return path


def test_an_index_is_timed_on_a_copy(lake: Any, tmp_path: Path) -> None:
    """With the database a missing index is named with a prediction; the original is left as it was."""
    path = database(tmp_path / "hub.db", 20_000)
    before = path.read_bytes()
    text = "SELECT id, body FROM m WHERE owner = ? ORDER BY x LIMIT ?"
    for _ in range(3):
        run = lake.run()
        for _ in range(4):
            run.trace(lake.span("task browse", 150, lake.query(text, 120, "m", rows=20)))
    lake.write()
    (without,) = [n for n in checked(lake.path).could_not_judge if n.what.startswith("what an index")]
    assert "--database FILE would let it be timed" in without.because
    made = checked(lake.path, databases=[path])
    (advice,) = made.recommendations
    assert "CREATE INDEX m_owner" in advice.change
    assert advice.predicted.then < 0.5 * advice.predicted.now
    assert advice.predicted.low <= advice.predicted.saving <= advice.predicted.high
    assert path.read_bytes() == before


BROWSE = "SELECT id, body FROM m WHERE owner = ? ORDER BY x LIMIT ?"
COUNT = "SELECT count(*) FROM m WHERE owner = ?"


@pytest.mark.parametrize(("slow_too", "places"), [(True, 2), (False, 1)])
def test_one_query_in_several_operations_is_one_finding(slow_too: bool, places: int, lake: Any) -> None:
    """A shape that is too slow in two routes is named once with both; a route in which it is quick is not named."""
    for _ in range(3):
        run = lake.run()
        for _ in range(4):
            run.trace(lake.span("GET /b", 190, lake.query(BROWSE, 180, "m", rows=20), kind="Server"))
            run.trace(
                lake.span("GET /a", 160, lake.query(BROWSE, 150 if slow_too else 10, "m", rows=20), kind="Server")
            )
    made = checked(lake.write())
    (finding,) = made.bottlenecks
    assert finding.operation == "GET /b"  # where it costs most
    assert ("in GET /b (too slow in GET /a as well) takes 180 ms" in finding.sentence) is slow_too
    assert len(finding.evidence) == len(finding.facts["operations"]) == places
    assert [o["operation"] for o in finding.facts["operations"]] == ["GET /b", "GET /a"][:places]
    assert finding.impact.observed_seconds == pytest.approx(12 * (0.08 + (0.05 if slow_too else 0)))
    assert finding.impact.share_of_kpi == pytest.approx(330 / 350 if slow_too else 180 / 190)
    for page in (text.render(made), markdown.render(made), html.render(made)):
        assert ("GET /a as well" in " ".join(page.split())) is slow_too


def test_what_a_finding_was_called_alone_it_still_answers_to(lake: Any) -> None:
    """A query that version 1 ran slowly in two routes and version 2 in one is the same finding, open, not mended."""
    prints: dict[str, set[str]] = {}
    for version, routes in (("1", ("GET /a", "GET /b")), ("2", ("GET /b",)), ("3", ("GET /c",))):
        run = lake.run(version)
        for route in routes:
            run.trace(lake.span(route, 190, lake.query(BROWSE, 180, "m", rows=20), kind="Server"))
        (finding,) = (b for b in checked(lake.write()).bottlenecks if b.status == "open")
        prints[version] = set(finding.fingerprints)
        if version == "2":
            assert {b.status for b in checked(lake.path).bottlenecks} == {"open"}
    assert prints["2"] < prints["1"]
    assert prints["3"].isdisjoint(prints["1"])
    earlier = [b for b in checked(lake.path).bottlenecks if b.status != "open"]
    # GET /b has not run in version 3, so nothing was shown to be mended.
    assert [(b.version, b.status) for b in earlier] == [("2", "unconfirmed")]


def test_a_prediction_for_one_route_is_open_while_another_shows_the_query(lake: Any, tmp_path: Path) -> None:
    """Version 2 is slow in a further route, whose name comes first: the index was not made, nothing was saved yet."""
    path = database(tmp_path / "hub.db", 20_000)
    for version, routes in (("1", ("GET /b",)), ("2", ("GET /a", "GET /b"))):
        for _ in range(3):
            run = lake.run(version)
            for route in routes:
                run.trace(lake.span(route, 190, lake.query(BROWSE, 180, "m", rows=20), kind="Server"))
        made = checked(lake.write(), databases=[path])
    (first,) = (e for e in made.ledger.entries if e.made_on == "1")
    assert first.observed is None
    assert "2 still shows the finding" in first.reason
    (finding,) = made.bottlenecks
    assert finding.also  # by the name it had when it stood alone


@pytest.mark.parametrize(("other", "indexes"), [(COUNT, 1), ("SELECT count(*) FROM m WHERE x = ?", 2)])
def test_queries_that_lack_one_index_are_one_cause(other: str, indexes: int, lake: Any, tmp_path: Path) -> None:
    """Two shapes on the same column in two routes each: one recommendation for all; on another column, another one."""
    path = database(tmp_path / "hub.db", 20_000)
    for _ in range(3):
        run = lake.run()
        for route in ("GET /a", "GET /b"):
            for _ in range(4):
                queries = (lake.query(BROWSE, 180, "m", rows=20), lake.query(other, 170, "m", rows=1))
                run.trace(lake.span(route, 400, *queries, kind="Server"))
    made = checked(lake.write(), databases=[path])
    assert len(made.bottlenecks) == 2
    assert len(made.recommendations) == len({r.change for r in made.recommendations}) == indexes
    answered = [f for advice in made.recommendations for f in advice.for_]
    assert sorted(answered) == sorted(f for finding in made.bottlenecks for f in finding.fingerprints)
    dearest = made.recommendations[0]
    assert "GET /a, GET /b" in dearest.where
    saved_s = sum(r.predicted.saving_observed_seconds or 0.0 for r in made.recommendations)
    assert saved_s == pytest.approx(24 * 0.35, rel=0.2)
    again = checked(lake.path, databases=[path])
    assert (again.ledger.predictions, len(again.recommendations)) == (indexes, indexes)


@pytest.mark.parametrize(("system", "said"), [("sqlite", True), ("postgresql", False)])
def test_a_slow_query_tells_how_to_get_a_prediction(system: str, said: bool, lake: Any) -> None:
    """Where a database would let an index be tried, the finding itself says so; where it would not, it does not."""
    slow = lake.query("SELECT id FROM m WHERE owner = ?", 120, "m")
    slow.attributes["db.system.name"] = system
    lake.run().trace(lake.span("task browse", 150, slow))
    made = checked(lake.write())
    for page in (text.render(made), markdown.render(made), html.render(made)):
        assert ("give --database FILE and an index is tried on a copy" in " ".join(page.split())) is said


def test_a_batch_is_measured_or_not_predicted(lake: Any, tmp_path: Path) -> None:
    """Queries of one row each tell nothing about a batch; with the database it is measured, without it not made."""
    text = "SELECT body FROM m WHERE id = ?"
    for _ in range(3):
        items = [lake.query(text, 1, "m") for _ in range(100)]
        lake.run().trace(lake.span("task ask", 120, *items))
    lake.write()
    plain = checked(lake.path)
    assert not plain.recommendations
    assert any("one query instead" in n.what for n in plain.could_not_judge)
    (advice,) = checked(lake.path, databases=[database(tmp_path / "hub.db", 2000)]).recommendations
    assert 0 < advice.predicted.then < advice.predicted.now


@pytest.mark.parametrize(("later", "observed"), [(1, 1), (300, 0)])
def test_a_loop_and_the_query_in_its_place_are_measured_alike(
    later: int, observed: int, lake: Any, tmp_path: Path
) -> None:
    """What is predicted for a loop of awaited queries is what one query later spares; the same loop spares nothing."""
    for version, queries in (("1", 300), ("2", later)):
        for _ in range(3):
            text = f"SELECT body FROM m WHERE id {'= ?' if queries > 1 else 'IN (?)'}"
            items = [lake.query(text, 0.2, "m", at_ms=i * 0.5) for i in range(queries)]
            lake.run(version).trace(lake.span("task ask", queries * 0.5 + 1, *items))
        made = checked(lake.write(), databases=[database(tmp_path / "hub.db", 2000)] if version == "1" else [])
        if version == "1":
            assert made.recommendations[0].predicted.now == pytest.approx(1e-3 * (300 * 0.2 + 299 * 0.24))
    assert (made.ledger.observed, made.ledger.covered) == (observed, observed)


def test_an_empty_lake_has_a_report(lake: Any) -> None:
    """Nothing received: every KPI unknown with its reason, no value 0, no finding."""
    made = checked(lake.write())
    assert {kpi.value for kpi in made.summary.kpis} == {None}
    assert all(kpi.status == "unknown" and kpi.reason for kpi in made.summary.kpis)
    assert made.bottlenecks == ()


def test_where_the_time_goes(lake: Any) -> None:
    """The newest version's start, operations, queries, searches and plugins are listed, and every list adds up."""
    for version, factor in (("1", 10), ("2", 1)):
        for _ in range(2):
            run = lake.run(version)
            heavy = lake.module_import("pandas", 200, lake.module_import("numpy.x", 50, used=False), used=False)
            run.trace(lake.startup(900, lake.phase("load", 400, heavy)))
            for number in range(12):
                inner = lake.plugin(f"p{number}", "render", 2.0 * factor, lake.query(f"SELECT {number}", 1.0 + number))
                run.trace(lake.span("GET /", 30.0 * factor, inner, lake.search("notes", 3.0), kind="Server"))
    (breakdown,) = checked(lake.write()).breakdown
    assert (breakdown.service, breakdown.version, breakdown.runs) == ("hub", "2", 2)
    start = breakdown.startup
    assert start is not None
    assert (start.starts, start.type, start.duration) == (2, "cold", pytest.approx(0.9))
    assert [(p.phase, p.duration) for p in start.phases] == [("load", pytest.approx(0.4))]
    assert [(i.module, i.self_time, i.cumulative, i.used_before_interactive, i.imported_by) for i in start.imports] == [
        ("pandas", pytest.approx(0.15), pytest.approx(0.2), False, ()),
        ("numpy", pytest.approx(0.05), pytest.approx(0.05), False, ("pandas",)),
    ]
    (operation,) = breakdown.operations.rows
    assert (operation.name, operation.calls, operation.total) == ("GET /", 24, pytest.approx(0.72))
    (index,) = breakdown.vector_searches.rows
    assert (index.name, index.detail, index.calls, index.median) == ("notes", "flat", 24, pytest.approx(0.003))
    dearest = breakdown.queries.rows[0]
    assert (dearest.detail, dearest.calls, dearest.total) == ("SELECT 11", 2, pytest.approx(0.024))
    for listing in (breakdown.queries, breakdown.plugins):
        assert (len(listing.rows), listing.others, listing.calls) == (8, 4, 24)
        assert sum(row.calls for row in listing.rows) + listing.others_calls == listing.calls
        assert sum(row.total for row in listing.rows) + listing.others_total == pytest.approx(listing.total)
    assert breakdown.plugins.total == pytest.approx(0.048)
    assert breakdown.queries.total == pytest.approx(2 * sum(range(1, 13)) / 1e3)


def test_imports_are_listed_by_package(lake: Any) -> None:
    """A package of many small modules stands first, what it brings says so, and own times add up."""
    for _ in range(3):
        run = lake.run("1")
        small = [lake.module_import(f"numpy.m{number}", 9, used=False) for number in range(30)]
        small.append(lake.module_import("scipy", 90, lake.module_import("numpy.late", 20, used=False), used=True))
        numpy = lake.module_import("numpy", 400, *small, used=True)
        again = lake.module_import("numpy.extra", 30, used=False)
        pandas = lake.module_import("pandas", 60, used="")
        run.trace(lake.startup(900, lake.phase("load", 600, numpy, again, pandas)))
    (breakdown,) = checked(lake.write()).breakdown
    start = breakdown.startup
    assert start is not None
    assert [(i.module, i.modules, i.used_before_interactive, i.imported_by) for i in start.imports] == [
        ("numpy", 33, True, ()),
        ("scipy", 1, True, ("numpy",)),
        ("pandas", 1, None, ()),
    ]
    assert [i.cumulative for i in start.imports] == pytest.approx([0.43, 0.09, 0.06])
    assert [i.self_time for i in start.imports] == pytest.approx([0.36, 0.07, 0.06])
    assert start.imports_total == pytest.approx(0.4 + 0.03 + 0.06)  # what stands in no other import


def test_a_rate_a_day_needs_an_hour(new_lake: Any) -> None:
    """Under an hour of observation nothing is stated a day, with the reason; findings still stand in order of cost."""
    for seconds, stated in ((600, False), (4000, True)):
        lake = new_lake()
        for _ in range(3):
            run = lake.run()
            run.trace(lake.span("GET /", 400, *(lake.query("SELECT 1", 4) for _ in range(60)), kind="Server"))
            run.trace(lake.span("POST /", 900, *(lake.query("SELECT 2", 8) for _ in range(90)), kind="Server"))
            run.trace(lake.span("idle", 1), gap_ms=seconds / 3 * 1e3)
            run.trace(lake.span("idle", 1))
        made = checked(lake.write())
        worst, second = (b for b in made.bottlenecks if b.detector == "n_plus_one")
        assert "SELECT 2" in worst.facts["query"] or worst.operation == "POST /"
        assert worst.impact.rate > second.impact.rate
        assert worst.impact.observed_seconds == pytest.approx(3 * 0.72)
        assert worst.impact.observed_for_seconds == pytest.approx(seconds, rel=0.02)
        if stated:
            assert worst.impact.seconds_per_day == pytest.approx(3 * 0.72 / seconds * 86_400, rel=0.02)
            assert worst.impact.reason == ""
        else:
            assert worst.impact.seconds_per_day is None
            assert "3600 s" in worst.impact.reason


def test_plugin_overhead_is_read_by_run(lake: Any) -> None:
    """The KPI has a value a run though the collector's own points of it name none; calls within calls count once."""
    for added_ms in (20, 30):
        run = lake.run()
        nested = lake.plugin("a", "render", added_ms, lake.plugin("b", "filter", added_ms - 5))
        run.trace(lake.span("GET /", 100, nested, kind="Server"))
        run.trace(lake.startup(500, lake.plugin("a", "load", 400)))
    (kpi,) = (k for k in checked(lake.write()).summary.kpis if k.name == "runtime.plugin_overhead")
    assert [point.value for point in kpi.points] == [pytest.approx(0.02), pytest.approx(0.03)]
    assert (kpi.runs, kpi.samples, kpi.status) == (2, 2, "pass")


@pytest.mark.parametrize(("added_ms", "found_too"), [(40, False), (60, True)])
def test_plugin_overhead_has_one_answer(added_ms: float, found_too: bool, lake: Any) -> None:
    """KPI and finding agree on a plugin inside a plugin with a span between: a moment counts once in both."""
    for _ in range(5):
        run = lake.run()
        inner = lake.plugin("b", "filter", added_ms - 4)
        nested = lake.plugin("a", "render", added_ms, lake.span("template", added_ms - 2, inner))
        run.trace(lake.span("GET /", 4 * added_ms, nested, kind="Server"))
    made = checked(lake.write())
    (kpi,) = (k for k in made.summary.kpis if k.name == "runtime.plugin_overhead")
    assert (kpi.value, kpi.status) == (pytest.approx(added_ms / 1e3), "fail" if found_too else "pass")
    findings = [b for b in made.bottlenecks if b.detector == "plugin_overhead"]
    assert [b.facts["p95_s"] for b in findings] == ([pytest.approx(added_ms / 1e3)] if found_too else [])
    assert any(c.what == "plugin overhead in GET /" for c in made.checked_and_fine) == (not found_too)


@pytest.mark.parametrize(("operations", "judged"), [(4, False), (5, True)])
def test_plugin_overhead_names_who_ran_there(operations: int, judged: bool, lake: Any) -> None:
    """The plugins of another operation, however dear, are not blamed; and four requests are too few to blame any."""
    run = lake.run()
    for _ in range(operations):
        run.trace(lake.span("GET /", 400, lake.plugin("here", "render", 80), kind="Server"))
    run.trace(lake.span("task index", 9_000, lake.plugin("elsewhere", "index", 8_000)))
    made = checked(lake.write())
    findings = [b for b in made.bottlenecks if b.detector == "plugin_overhead"]
    assert [(b.operation, b.facts["plugins"]) for b in findings] == ([("GET /", ["here"])] if judged else [])
    assert not any("elsewhere" in b.sentence for b in findings)
    unjudged = {n.what: n.because for n in made.could_not_judge if n.what.startswith("plugin overhead")}
    assert unjudged["plugin overhead in task index"] == "1 operation with plugins seen, 5 needed"
    assert ("plugin overhead in GET /" in unjudged) == (not judged)


def test_a_search_without_a_database_system_is_listed(lake: Any) -> None:
    """An index inside the program (`hub.vector_search("notes")`) names no db.system.name; an upsert is no search."""
    inside, upsert, known = lake.search("notes", 80), lake.search("notes", 5), lake.search("files", 3)
    del inside.attributes["db.system.name"], upsert.attributes["db.system.name"]
    upsert.attributes["db.operation.name"] = "upsert"
    for _ in range(3):
        lake.run().trace(lake.span("task find", 100, inside, upsert, known))
    made = checked(lake.write())
    assert [b.detector for b in made.bottlenecks] == ["slow_vector_search"]
    listed = made.breakdown[0].vector_searches
    assert [(row.name, row.calls, row.total) for row in listed.rows] == [
        ("notes", 3, pytest.approx(0.24)),
        ("files", 3, pytest.approx(0.009)),
    ]
    assert made.breakdown[0].queries.rows == ()


@pytest.mark.parametrize("counted", [True, False])
def test_breaches_are_counted_by_the_counter(counted: bool, lake: Any) -> None:
    """Of 200 breaches 40 events are told; the counter knows all. Without a counter the events are what there is."""
    run = lake.run()
    for _ in range(40):
        quota(over=True, event=True)(lake, run, random.Random(1))
    if counted:
        for n in (120, 80):
            about = {"hub__plugin__id": "slow", "hub__quota__resource": "execution", "hub__plugin__tier": "standard"}
            run.sum("hub.quota.violations", n, temporality=1, **about)
        run.sum("hub.quota.violations", 999, temporality=1, hub__plugin__id="slow", hub__quota__resource="memory")
    (finding,) = (b for b in checked(lake.write()).bottlenecks if b.detector == "plugin_over_quota")
    assert f"{200 if counted else 40} times" in finding.sentence


@pytest.mark.parametrize(
    ("cpu_s", "said", "severity"), [(28.2, "used 47% of cpu", "high"), (None, "used at least 11% of cpu", "medium")]
)
def test_cpu_over_quota_says_what_was_used(cpu_s: float | None, said: str, severity: str, lake: Any) -> None:
    """The event holds the share at the crossing (11 %); where spans hold CPU the fullest minute is what was used."""
    run = lake.run()
    for _ in range(2):  # two minutes that are equally full: windows are not added up
        for _ in range(2):
            call = lake.plugin("busy", "enrich", 20_000)
            if cpu_s is not None:
                call.attributes["hub.plugin.cpu_time"] = cpu_s / 2
            trace = run.trace(lake.span("task big", 29_999, call))
    run.event(
        "hub.quota.violation", trace, hub__plugin__id="busy", hub__plugin__hook="enrich", hub__quota__resource="cpu",
        hub__quota__limit=0.1, hub__quota__observed=0.11, hub__quota__unit="1", hub__quota__window=60.0,
        hub__quota__action="observed",
    )  # fmt: skip
    (finding,) = (b for b in checked(lake.write()).bottlenecks if b.detector == "plugin_over_quota")
    assert said in finding.sentence
    assert finding.severity == severity


@pytest.mark.parametrize("memory", [False, True])
def test_only_what_was_measured_is_within_its_quota(memory: bool, lake: Any) -> None:
    """A plugin is within a quota that its spans measured; the rest, is not judged."""
    run = lake.run()
    call = lake.plugin("fast", "render", 1)
    call.attributes["hub.plugin.cpu_time"] = 0.001
    if memory:
        call.attributes["hub.plugin.memory_delta"] = 1024
    run.trace(lake.span("GET /", 10, call))
    run.exponential("hub.plugin.call.duration", {-20: 7}, 0, 7e-6, hub__plugin__id="tiny", hub__plugin__hook="h")
    run.exponential("hub.plugin.call.duration", {5: 1}, 0, 40.0, hub__plugin__id="long", hub__plugin__hook="h")
    made = checked(lake.write())
    fine = {c.what: c.because for c in made.checked_and_fine if c.what.startswith("plugin quotas")}
    lacking = [n for n in made.could_not_judge if n.what.startswith("plugin quotas")]
    kept = "time, CPU and memory" if memory else "time and CPU"
    assert fine[f"plugin quotas of {kept}"] == "1 plugin stayed within: fast"
    assert fine["plugin quotas of time"] == "1 plugin stayed within: tiny"  # by the metric's longest call
    assert [b.facts["plugin"] for b in made.bottlenecks if b.detector == "plugin_over_quota"] == ["long"]
    (of_fast,) = (n for n in lacking if "fast" in n.what)
    missing = "network and file system" if memory else "memory, network and file system"
    assert of_fast.because == f"{missing} of plugin calls in this process are not measured"
    (of_tiny,) = (n for n in lacking if "tiny" in n.what)
    assert "CPU, memory, network and file system" in of_tiny.because


def test_plugin_calls_are_counted_by_the_metric(lake: Any) -> None:
    """Calls without a span count where the histogram came; a plugin without a histogram is counted by its spans."""
    run = lake.run()
    run.trace(lake.span("GET /", 90, lake.plugin("a", "render", 40), lake.plugin("b", "render", 30)))
    run.exponential(
        "hub.plugin.call.duration", {-17: 999, -5: 1}, 0, 0.05, hub__plugin__id="a", hub__plugin__hook="render"
    )
    rows = {row.name: (row.calls, row.total) for row in checked(lake.write()).breakdown[0].plugins.rows}
    assert rows == {"a": (1000, pytest.approx(0.05)), "b": (1, pytest.approx(0.03))}


def test_explicit_histograms_feed_kpis(lake: Any) -> None:
    """Frames and searches sent as histograms with explicit bounds, as other SDKs do, have values as others have."""
    run = lake.run()
    run.trace(lake.span("x", 1))
    run.histogram("hub.ui.frame.duration", [0, 90, 10], [0.01, 0.02], 2.0)
    run.histogram("hub.vector.search.duration", [0, 94, 6, 0], [0.01, 0.02, 0.04], 1.5)
    values = {k.name: (k.value, k.samples) for k in checked(lake.write()).summary.kpis}
    assert values["runtime.frame_rate"] == (pytest.approx(50.0), 100)
    assert values["memory.vector_search_time"] == (pytest.approx(0.03), 100)


def test_metrics_alone_have_a_report(lake: Any) -> None:
    """A service that sent no span is judged by its metrics, and the report says what could not be looked for."""
    run = lake.run()
    run.gauge("hub.startup.memory", 150 * 2**20)
    run.sum("process.memory.usage", 180 * 2**20)
    made = checked(lake.write())
    assert made.services == ("hub",)
    assert made.summary.verdict.startswith("1 of 1 targets")
    assert "no span was received" in made.summary.verdict
    assert {k.name for k in made.summary.kpis if k.value is not None} == {"startup.memory", "runtime.memory"}
    assert any("read from spans" in n.because for n in made.could_not_judge)
    for render in (text.render, html.render, markdown.render):
        assert "no span was received" in render(made)


def test_logs_alone_are_named(lake: Any) -> None:
    """A lake of log records has nothing to judge, and says what it holds."""
    lake.run().event("hub.alert")
    path = lake.write()
    made = checked(path)
    assert "only 1 log record of hub" in made.summary.verdict
    with pytest.raises(LakeError, match="only 1 log record"):
        report(path, service="hub")


def test_a_service_without_a_name_has_a_report(lake: Any) -> None:
    """One span of a service without name, version and instance is reported like any other."""
    lake.run("", service="", instance="").trace(lake.span("x", 1))
    made = checked(lake.write())
    assert made.breakdown[0].operations.rows[0].name == "x"
    assert "(no name)" in text.render(made)
    assert "(no name)" in html.render(made)
    assert "(no name)" in markdown.render(made)


def test_reports_are_deterministic(lake: Any) -> None:
    """Two reports on one lake differ in their date only."""
    for _ in range(3):
        n_plus_one(30, 4)(lake, lake.run(), random.Random(1))
    path = lake.write()
    one, two = checked(path).to_dict(), checked(path).to_dict()
    assert {k: v for k, v in one.items() if k != "generated_at"} == {
        k: v for k, v in two.items() if k != "generated_at"
    }


def test_bad_questions_are_refused(lake: Any, tmp_path: Path) -> None:
    """An unknown service, version, grouping, database or an empty window: one error with the way out."""
    n_plus_one(30, 4)(lake, lake.run(), random.Random(1))
    path = lake.write()
    with pytest.raises(LakeError, match="'nobody'"):
        report(path, service="nobody")
    with pytest.raises(LakeError, match="runs of both"):
        compare(path, "1", "9")
    with pytest.raises(ConfigError, match="colour"):
        compare(path, "1", "2", by="colour")
    with pytest.raises(ConfigError, match="missing"):
        report(path, databases=[tmp_path / "no.db"])
    with pytest.raises(ConfigError, match="window"):
        report(path, since=5, until=5)
    (path / "ledger.jsonl").write_text('{"ledger_version": 99, "recommendation": {}}\n')
    with pytest.raises(LakeError, match="upgrade hubscope"):
        report(path)


@pytest.mark.parametrize("added", [b"{}\n", b'{"ledger_version": 1, "recomm', b"\xff\xfe\n", b"[1]\n", b"\n", b""])
def test_a_damaged_line_of_the_ledger_is_named_and_left_out(added: bytes, lake: Any) -> None:
    """The report goes on with the other predictions, says which line is none, and never changes it; a blank is none."""
    for i in range(3):
        start(1500 + i, 900, 800)(lake, lake.run("1"), random.Random(1))
    kept = checked(lake.write()).ledger.predictions
    file = lake.path / "ledger.jsonl"
    whole = file.read_bytes()
    file.write_bytes(added + (b"" if added.endswith(b"\n") or not added else b"\n") + whole)
    made = checked(lake.path)
    said = [n for n in made.could_not_judge if "of the ledger" in n.what]
    assert kept == made.ledger.predictions > 0
    assert [n.because.split(" is ")[0] for n in said] == (["line 1"] if added.strip() else [])
    for i in range(3):
        start(1500 + i, 900, 800)(lake, lake.run("2"), random.Random(1))
    file.write_bytes(whole + added)  # half written: the next prediction has a line of its own
    assert checked(lake.write()).ledger.predictions == 2 * kept
    assert file.read_bytes().startswith(whole + added)


def test_a_trace_is_read_whole(lake: Any) -> None:
    """load_trace gives the schema's object; an unknown id and no id are errors."""
    trace_id = lake.run().trace(lake.span("GET /", 10, lake.query("SELECT 1", 4), lake.span("render", 5)))
    engine = Engine(connect(lake.write()))
    trace = load_trace(engine, trace_id.upper())
    jsonschema.validate(json.loads(trace.to_json()), json_schema("trace"))
    assert isinstance(trace, Trace)
    assert [span.name.split(" #")[0] for span in trace.spans] == ["GET /", "SELECT memories", "render"]
    assert trace.spans[0].self_time == pytest.approx(0.001)
    with pytest.raises(LakeError, match="no span of trace"):
        load_trace(engine, "f" * 32)
    with pytest.raises(ConfigError, match="no trace id"):
        load_trace(engine, "xyz")


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 20])
def test_lru_curves_are_exact(capacity: int) -> None:
    """The curve's hits at a capacity are those of an LRU cache of that capacity, replayed."""
    chance = random.Random(capacity)
    keys = [chance.randrange(25) for _ in range(2000)]
    held: list[int] = []
    hits = 0
    for key in keys:
        if key in held:
            hits += 1
            held.remove(key)
        held.append(key)
        del held[:-capacity]
    assert lru.curve(keys).hits(capacity) == hits


def test_a_log_of_a_sample_of_keys_tells_of_the_whole_cache() -> None:
    """One key in 8, with all its look-ups, gives the hit rate that all of them give."""
    draw = random.Random(7)
    keys = [int(draw.paretovariate(0.8)) % 20_000 for _ in range(60_000)]
    sampled = [key for key in keys if (key * 0x9E3779B97F4A7C15 >> 40) % 8 == 3]
    whole, part = lru.curve(keys), lru.curve(sampled, one_in=8)
    cold = [curve.hits(8000) / (curve.accesses - curve.first) for curve in (whole, part)]
    assert abs(cold[0] - cold[1]) < 0.1

"""A report with everything a report can hold, built from the model's own objects: what the renderers are tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hubscope.analytics import model
from hubscope.analytics.model import Evidence, Impact, Kpi, RunValue

DAY = "2026-03-02"
STARTS = [f"{DAY}T10:{minute:02d}:00+00:00" for minute in range(0, 50, 5)]
BASE_NS = 1_772_445_600_000_000_000


def run_values(values: list[float], first_version: int = 5) -> tuple[RunValue, ...]:
    return tuple(
        RunValue(f"run-{i}", "1" if i < first_version else "2", STARTS[i], value) for i, value in enumerate(values)
    )


def kpi(name: str, unit: str, target: str | None, values: list[float], status: str, reason: str, **more: str) -> Kpi:
    middle = sorted(values)[len(values) // 2] if values else None
    return Kpi(
        name=name,
        unit=unit,
        target=target,
        value=middle,
        low=min(values) if values else None,
        high=max(values) if values else None,
        runs=len(values),
        samples=len(values) * 40,
        status=status,
        reason=reason,
        service="reference-hub",
        points=run_values(values),
        **more,
    )


def span(
    number: int, parent: int | None, name: str, start_ms: float, end_ms: float, critical_ms: float, **attributes: str
) -> model.TraceSpan:
    return model.TraceSpan(
        span_id=f"{number:016x}",
        parent_span_id="" if parent is None else f"{parent:016x}",
        name=name,
        service="reference-hub",
        kind="Internal",
        start_unix_nano=BASE_NS + int(start_ms * 1e6),
        end_unix_nano=BASE_NS + int(end_ms * 1e6),
        self_time=critical_ms / 1e3,
        exclusive_critical_time=critical_ms / 1e3,
        attributes={key.replace("__", "."): value for key, value in attributes.items()},
        events=(),
        links=(),
        status=model.SpanStatus("Error" if "broken" in name else "Unset", ""),
    )


def trace(trace_id: str, spans: list[model.TraceSpan], left_out: int = 0) -> model.Trace:
    root = spans[0]
    path, cursor = [], root.start_unix_nano
    for child in spans[1:]:
        if child.parent_span_id == root.span_id and child.exclusive_critical_time > 0:
            if child.start_unix_nano > cursor:
                path.append(model.Segment(root.span_id, cursor, child.start_unix_nano))
            path.append(model.Segment(child.span_id, child.start_unix_nano, child.end_unix_nano))
            cursor = child.end_unix_nano
    path.append(model.Segment(root.span_id, cursor, root.end_unix_nano))
    return model.Trace(
        trace_id=trace_id,
        service=root.service,
        root=root.span_id,
        duration=(root.end_unix_nano - root.start_unix_nano) / 1e9,
        complete=left_out == 0,
        problems=("clock skew of 3 ms between client and server",) if left_out else (),
        spans=tuple(spans),
        critical_path=tuple(path),
        spans_left_out=left_out,
    )


def startup_trace() -> model.Trace:
    spans = [span(1, None, "hub.startup", 0, 2400, 60)]
    spans.append(span(2, 1, "hub.startup.phase load_plugins", 40, 900, 860, hub__startup__phase="load_plugins"))
    modules = [("chart_suite", 120, 640), ("numpy", 660, 780), ("yaml", 790, 840)]
    for i, (name, start, end) in enumerate(modules):
        spans.append(span(10 + i, 2, f"import {name}", start, end, end - start, code__namespace=name))
    spans.append(span(3, 1, "hub.startup.phase open_memory", 920, 1500, 580, hub__startup__phase="open_memory"))
    spans.append(span(20, 3, "SELECT memories", 930, 1480, 550, db__system__name="sqlite"))
    spans.append(span(4, 1, "hub.startup.phase first_view <script>alert(1)</script>", 1500, 2380, 880))
    return trace("a" * 32, spans)


def task_trace() -> model.Trace:
    spans = [span(1, None, "task open_persona", 0, 420, 30), span(2, 1, "search_memory memories", 10, 60, 50)]
    spans.append(span(3, 2, "search memory_vectors", 12, 55, 43, hub__vector__top_k="10"))
    spans.append(span(4, 1, "SELECT memories", 62, 70, 8, db__system__name="sqlite"))
    for i in range(60):
        start = 72 + i * 5.2
        spans.append(span(100 + i, 1, "SELECT tags", start, start + 5, 5, db__system__name="sqlite"))
    spans.append(span(5, 1, "plugin summarizer on_open", 386, 415, 29, hub__plugin__id="summarizer"))
    spans.append(span(6, 5, "broken call", 390, 400, 10))
    return trace("b" * 32, spans, left_out=12)


def sample() -> model.Report:
    offenders = tuple(f"{100 + i:016x}" for i in range(60))
    n_plus_one = model.Bottleneck(
        "n_plus_one:reference-hub:task open_persona:SELECT tags",
        "n_plus_one",
        "critical",
        "reference-hub",
        "task open_persona",
        "Opening a persona runs SELECT tags once for each memory: 60 queries where one would do, 300 ms.",
        Impact(2160.0, 0.71, "ux.task_completion_time"),
        (Evidence("b" * 32, (f"{1:016x}",), (f"{4:016x}",), offenders),),
        "1",
        "resolved",
        {"queries": 60, "seconds": 0.3},
    )
    slow_import = model.Bottleneck(
        "unused_import:reference-hub:hub.startup:chart_suite",
        "unused_at_start_import",
        "high",
        "reference-hub",
        "hub.startup",
        "import chart_suite takes 520 ms of the start, and nothing of it runs before the application is interactive.",
        Impact(None, 0.22, "startup.cold", 2.6, 41.0, "observed for 41 s only: a rate a day is stated from 3600 s on"),
        (Evidence("a" * 32, (f"{1:016x}",), (), (f"{10:016x}",)),),
        "1",
        "resolved",
    )
    slow_query = model.Bottleneck(
        "slow_query:reference-hub:SELECT memories",
        "slow_query",
        "medium",
        "reference-hub",
        "task open_persona",
        "The query 'SELECT memories' in task open_persona takes 55 ms for 50 rows: look for a missing index.",
        Impact(360.0, 0.13, "ux.task_completion_time"),
        (Evidence("a" * 32, (f"{3:016x}",), (), (f"{20:016x}",)),),
        "2",
    )
    plugin = model.Bottleneck(
        "plugin_over_quota:reference-hub:summarizer",
        "plugin_over_quota",
        "medium",
        "reference-hub",
        "plugin summarizer on_open",
        "Plugin summarizer | <b>on_open</b> used 14 % of a CPU, over the 10 % a standard plugin may use.",
        Impact(None, None, None, reason="how much time it costs was not measured"),
        (Evidence("b" * 32, (f"{1:016x}",), (), (f"{5:016x}",)),),
        "2",
    )
    recommendations = (
        model.Recommendation(
            "index:memories",
            (slow_query.fingerprint,),
            "Index memories(persona_id)",
            "SELECT memories in task open_persona",
            model.Predicted(
                "task.duration",
                "s",
                0.14,
                0.09,
                0.05,
                0.04,
                0.06,
                "Timed on a copy of the database: 55 ms before, 5 ms after.",
                {"task": "open_persona"},
                330.0,
            ),
            "EXPLAIN QUERY PLAN shows SEARCH instead of SCAN.",
            "reference-hub",
            "2",
        ),
        model.Recommendation(
            "batch:tags",
            (n_plus_one.fingerprint,),
            "Fetch the tags of all memories in one query",
            "SELECT tags in task open_persona",
            model.Predicted(
                "task.duration",
                "s",
                0.42,
                0.13,
                0.29,
                0.26,
                0.31,
                "60 queries of 5.0 ms against one of 5.0 ms and 600 rows at 12 µs each, regressed from the same spans.",
                {"task": "open_persona"},
                2088.0,
            ),
            "hubscope compare 1 2, then look at task.duration of open_persona.",
            "reference-hub",
            "1",
            "resolved",
        ),
        model.Recommendation(
            "lazy:chart_suite",
            (slow_import.fingerprint,),
            "Import chart_suite where it is first used",
            "chart_suite",
            model.Predicted(
                "startup.duration",
                "s",
                2.4,
                1.88,
                0.52,
                0.49,
                0.55,
                "Self time of chart_suite and of the 14 modules that only it imports, read from 5 starts.",
                {"type": "cold"},
                None,
                2.6,
                41.0,
                "observed for 41 s only: a rate a day is stated from 3600 s on",
            ),
            "hubscope compare 1 2, then look at startup.cold.",
            "reference-hub",
            "1",
            "resolved",
        ),
    )
    comparisons = (
        model.Comparison(
            "startup.cold", {}, 2.41, 1.86, -0.228, -0.26, -0.19, "better", 0.05, 5, 5, "s", "", 0.001, "1", "2"
        ),
        model.Comparison(
            "task.duration",
            {"task": "open_persona"},
            0.42,
            0.14,
            -0.667,
            -0.7,
            -0.62,
            "better",
            0.08,
            5,
            5,
            "s",
            "",
            0.0004,
            "1",
            "2",
        ),
        model.Comparison(
            "memory.usage", {}, 151e6, 168e6, 0.113, 0.06, 0.16, "worse", 0.04, 5, 5, "By", "", 0.02, "1", "2"
        ),
        model.Comparison(
            "vector.search",
            {"index": "memory_vectors"},
            0.043,
            0.0432,
            0.005,
            -0.02,
            0.03,
            "same",
            0.04,
            5,
            5,
            "s",
            "",
            0.8,
            "1",
            "2",
        ),
        model.Comparison(
            "page.frame",
            {},
            None,
            None,
            None,
            None,
            None,
            "unknown",
            None,
            1,
            0,
            "s",
            "version 2 has no run with it",
            None,
            "1",
            "2",
        ),
    )
    return model.Report(
        schema_version=1,
        generated_at=f"{DAY}T11:00:00+00:00",
        window=model.Window(STARTS[0], f"{DAY}T10:48:00+00:00"),
        services=("reference-hub",),
        summary=model.Summary(
            "2 of 6 targets are missed; the largest saving on offer is 50 ms of each open_persona.",
            4,
            2,
            3,
            (
                kpi(
                    "startup.cold",
                    "s",
                    "< 3",
                    [2.44, 2.39, 2.41, 2.46, 2.38, 1.9, 1.85, 1.86, 1.88, 1.84],
                    "pass",
                    "below 3 s in every run",
                ),
                kpi(
                    "startup.memory",
                    "By",
                    "< 200 MiB",
                    [151e6, 149e6, 150e6, 152e6, 151e6, 167e6, 168e6, 169e6, 168e6, 170e6],
                    "pass",
                    "below",
                ),
                kpi(
                    "runtime.response_time",
                    "s",
                    "< 100 ms",
                    [0.42, 0.43, 0.41, 0.44, 0.42, 0.14, 0.14, 0.15, 0.13, 0.14],
                    "fail",
                    "above 100 ms",
                ),
                kpi(
                    "memory.vector_search",
                    "s",
                    "< 50 ms",
                    [0.043, 0.044, 0.042, 0.043, 0.045, 0.043, 0.043, 0.044, 0.042, 0.043],
                    "pass",
                    "below 50 ms",
                ),
                kpi("memory.cache_hit_rate", "1", "> 80 %", [0.41, 0.42, 0.4, 0.41, 0.43], "fail", "below 0.8"),
                kpi("runtime.cpu", "1", None, [0.21, 0.24], "unknown", "there is no target"),
                kpi("plugins.installed", "{plugin}", "> 1000", [], "unknown", "nothing reports hub.plugins.installed"),
                kpi("runtime.frame_rate", "{frame}/s", "> 60", [], "unknown", "no page reports frames"),
            ),
        ),
        trends=(
            model.Trend(
                "process.memory.usage",
                {"service": "reference-hub"},
                12.4e6,
                9.1e6,
                15.2e6,
                "By/h",
                40,
                "rising",
                (STARTS[5],),
                "",
                run_values([1.0, 2.0, 3.0, 5.0, 8.0, 8.5]),
            ),
            model.Trend("startup.cold", {}, 0.0, -0.01, 0.01, "s/day", 10, "flat"),
            model.Trend("task.duration", {}, None, None, None, "s/day", 2, "unknown", (), "two runs are too few"),
        ),
        bottlenecks=(slow_query, plugin, n_plus_one, slow_import),
        recommendations=recommendations,
        comparisons=comparisons,
        ledger=model.Ledger(
            3,
            2,
            1,
            0.061,
            (
                model.LedgerEntry(
                    "batch:tags",
                    "reference-hub",
                    "Fetch the tags of all memories in one query",
                    "task.duration",
                    {},
                    "s",
                    "1",
                    0.29,
                    0.26,
                    0.31,
                    "2",
                    0.28,
                    0.265,
                    0.3,
                    True,
                    "SELECT tags now runs once",
                ),
                model.LedgerEntry(
                    "lazy:chart_suite",
                    "reference-hub",
                    "Import chart_suite where it is first used",
                    "startup.duration",
                    {},
                    "s",
                    "1",
                    0.52,
                    0.49,
                    0.55,
                    "2",
                    0.61,
                    0.58,
                    0.64,
                    False,
                    "chart_suite is no longer imported",
                ),
                model.LedgerEntry(
                    "index:memories",
                    "reference-hub",
                    "Index memories(persona_id)",
                    "task.duration",
                    {},
                    "s",
                    "2",
                    0.05,
                    0.04,
                    0.06,
                    None,
                    None,
                    None,
                    None,
                    None,
                    "no later version has run",
                ),
            ),
        ),
        checked_and_fine=(
            model.Checked("slow vector search", "memory_vectors: 43 ms at most, target 50 ms"),
            model.Checked("endpoint regression", "3 operations, none slower than in the runs before"),
        ),
        could_not_judge=(model.NotJudged("wrong vector index", "no search says its index type"),),
        runs=tuple(
            model.Run(f"run-{i}", "reference-hub", "1" if i < 5 else "2", start, start, 640)
            for i, start in enumerate(STARTS)
        ),
        traces=(startup_trace(), task_trace()),
        lake="lake",
        breakdown=(breakdown(),),
    )


def time_list(*rows: tuple[str, str, int, float], others: int = 0) -> model.TimeList:
    """Rows as (name, detail, calls, total); each of the others took 1 ms."""
    total = sum(row[3] for row in rows) + others / 1e3
    return model.TimeList(
        tuple(
            model.TimeRow(name, detail, calls, seconds, seconds / calls, 2 * seconds / calls, seconds / total)
            for name, detail, calls, seconds in rows
        ),
        calls=sum(row[2] for row in rows) + others,
        total=total,
        others=others,
        others_calls=others,
        others_total=others / 1e3,
    )


def breakdown() -> model.Breakdown:
    modules = [
        ("chart_suite.renderers.vector_graphics.backends.portable_document", 0.29, 0.52, False),
        ("numpy", 0.1, 0.12, True, 14, ("chart_suite", "pandas")),
        ("yaml", 0.05, 0.05, None, 1, ("chart_suite",)),
        *((f"small_{i}", 0.01 - i / 1e3, 0.01, True) for i in range(5)),
    ]
    return model.Breakdown(
        service="reference-hub",
        version="2",
        runs=5,
        observed_for_seconds=41.0,
        startup=model.StartupTime(
            starts=5,
            type="cold",
            ended_by="interactive",
            duration=1.86,
            phases=(
                model.PhaseTime("load_plugins", 0.86, 0.46),
                model.PhaseTime("first_view <script>alert(1)</script>", 0.3, 0.16),
            ),
            imports=tuple(model.ImportTime(*module) for module in modules),
            imports_total=0.56,
            imports_others=41,
            imports_others_self_time=0.0802,
        ),
        operations=time_list(("task open_persona", "", 200, 28.0), ("GET /-/<b>memories</b>", "", 1200, 6.0)),
        queries=time_list(
            *(
                (f"SELECT memories tags #{i:06x}", f"SELECT * FROM memories WHERE id = {i}", 90, 9.0 / i)
                for i in range(1, 9)
            ),
            others=41,
        ),
        vector_searches=time_list(("memory_vectors", "hnsw", 200, 8.6)),
        plugins=time_list(
            ("summarizer", "on_open", 200, 5.8),
            ("", "render_cell", 9000, 1.2),
            ("datasette.default_magic_parameters", "register_magic_parameters", 7, 0.02),
        ),
    )


def empty() -> model.Report:
    return model.Report(
        1,
        f"{DAY}T11:00:00+00:00",
        model.Window(None, None),
        (),
        model.Summary("There is nothing to judge yet: the lake holds no run.", 0, 0, 0, ()),
        (),
        (),
        (),
        (),
        model.Ledger(0, 0, 0, None),
        (),
        (),
    )


@pytest.fixture
def report() -> model.Report:
    return sample()


@pytest.fixture
def empty_report() -> model.Report:
    return empty()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with its golden file; `pytest --update-golden` writes it instead."""
    folder = Path(__file__).parent / "golden"

    def check(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text

    return check

"""What a run is, and which version is the later one."""

from __future__ import annotations

from typing import Any

import pytest

from hubscope.analytics import compare, report
from hubscope.analytics.connect import connect
from hubscope.analytics.fetch import fetch
from hubscope.console import lake_status


def loop(lake: Any, queries: int) -> Any:
    items = [lake.query("SELECT * FROM items WHERE id = ?", 11, "items") for _ in range(queries)]
    return lake.span("task ask", 400, lake.span("recall", 300, *items))


@pytest.mark.parametrize("instance", ["", "hub-0"])
def test_two_versions_are_never_one_run(instance: str, lake: Any) -> None:
    """Without service.instance.id, or with a place's name for one, a finding that the next version mends is over."""
    for version, queries in (("1.9", 8), ("1.10", 1)):
        run = lake.run(version, instance=instance)
        run.trace(loop(lake, queries))
        run.gauge("hub.startup.memory", 1e6)
    made = report(lake.write())
    assert [(run.id, run.version, run.spans) for run in made.runs] == [(instance, "1.9", 10), (instance, "1.10", 3)]
    assert [(b.detector, b.version, b.status) for b in made.bottlenecks] == [("n_plus_one", "1.9", "resolved")]
    assert [(b.version, b.runs) for b in made.breakdown] == [("1.10", 1)]
    (memory,) = (kpi for kpi in made.summary.kpis if kpi.name == "startup.memory")
    assert [(point.run, point.version) for point in memory.points] == [(instance, "1.10")]
    assert any(n.what == "runs of hub" for n in made.could_not_judge) == (not instance)


def test_a_finding_that_the_next_version_still_shows_is_open(lake: Any) -> None:
    """The near miss: the same two versions without a mend."""
    for version in ("1.9", "1.10"):
        lake.run(version, instance="").trace(loop(lake, 8))
    assert [(b.version, b.status) for b in report(lake.write()).bottlenecks] == [("1.10", "open")]


def test_the_later_version_is_the_one_that_came_later(lake: Any) -> None:
    """In a window in which both run the old one's first span may be the later: the lake knows which came first."""
    old, new = lake.run("1.9"), lake.run("1.10")
    old.trace(loop(lake, 8))
    new.trace(loop(lake, 1))
    since = new.now_ns
    new.trace(loop(lake, 1))
    old.now_ns = new.now_ns
    old.trace(loop(lake, 8))
    made = report(lake.write(), since=since)
    assert [(b.version, b.status) for b in made.bottlenecks] == [("1.9", "resolved")]


def test_runs_are_compared_by_instance_or_by_instance_and_version(lake: Any) -> None:
    """An instance's name means all its runs; its name and a version mean one of them, also where the name is absent."""
    for version, ms in (("1", 10), ("2", 30)):
        for number in range(4):
            run = lake.run(version, instance=f"hub-{number}")
            for _ in range(5):
                run.trace(lake.span("GET /", ms + number / 10, kind="Server"))
    path = lake.write()
    both = ("hub-0", "hub-1"), ("hub-2", "hub-3")
    (same,) = (c for c in compare(path, *both, by="instance") if c.metric == "root.duration")
    assert (same.runs_before, same.runs_after) == (4, 4)
    one = [[f"hub-{number}@{version}" for number in range(4)] for version in (1, 2)]
    (slower,) = (c for c in compare(path, *one, by="instance") if c.metric == "root.duration")
    assert (slower.runs_before, slower.runs_after, slower.verdict) == (4, 4, "worse")


def test_a_run_is_one_text_in_python(lake: Any) -> None:
    """`run_of` gives a pair, which comes out as one text; its parts may be absent."""
    for instance, version in (("a", "1"), ("a", ""), ("", "1"), ("", "")):
        lake.run(version, instance=instance).trace(lake.span("x", 1))
    _, rows = fetch(connect(lake.write()), "SELECT run_of(ResourceAttributes) AS run FROM otel_traces ORDER BY run")
    assert rows == [("",), ("@1",), ("a",), ("a@1",)]


def test_status_counts_runs_and_orders_versions_as_reports_do(lake: Any) -> None:
    """Pairs of instance and version, either of which may be absent; the version first seen first."""
    for version, instance in (("1.9", "a"), ("1.9", "b"), ("1.10", "a"), ("1.10", "")):
        lake.run(version, instance=instance).trace(lake.span("x", 1))
    (service,) = lake_status.read(str(lake.write())).services
    assert (service.versions, service.runs, service.spans) == (("1.9", "1.10"), 4, 4)


@pytest.mark.parametrize("instance", ["worker-{}", "main"])
def test_workers_are_neither_runs_nor_starts(instance: str, lake: Any) -> None:
    """One start of a program with three measured workers: one run and one start, and what the workers did is there;
    also where the environment gives all of them one instance."""
    run = lake.run("1", instance="main")
    run.trace(lake.startup(900, lake.phase("load", 700)))
    run.trace(lake.span("task ask", 1200))
    for number in range(3):
        worker = lake.run("1", instance=instance.format(number))
        attributes = {"hub.startup.parent": "main", "hub.startup.end": "exit"}
        worker.trace(lake.span("hub.startup.worker", 5000, lake.phase("load", 4000), attributes=attributes))
        worker.trace(lake.span("task work", 50))
    path = lake.write()
    made = report(path)
    assert [(r.id, r.spans) for r in made.runs] == [("main", 12 if instance == "main" else 3)]
    (breakdown,) = made.breakdown
    assert (breakdown.runs, breakdown.startup.starts) == (1, 1)
    assert breakdown.startup.duration == pytest.approx(0.9)
    assert [(p.phase, p.duration) for p in breakdown.startup.phases] == [("load", pytest.approx(0.7))]
    assert {(row.name, row.calls) for row in breakdown.operations.rows} == {("task ask", 1), ("task work", 3)}
    (interactive,) = (kpi for kpi in made.summary.kpis if kpi.name == "startup.interactive")
    assert (interactive.runs, interactive.value) == (1, pytest.approx(0.9))
    assert [service.runs for service in lake_status.read(str(path)).services] == [1]


def test_workers_are_no_runs_of_a_kpi_and_no_samples_of_a_comparison(lake: Any) -> None:
    """Two versions of three runs with four workers each, one of them started by a worker: three runs a side, whether
    the application itself feeds the metric or only its workers do; what the workers did is in the values."""
    for version, ms in (("1", 50), ("2", 150)):
        for number in range(3):
            main = lake.run(version, instance=f"{version}-{number}")
            main.trace(lake.span("task ask", 2 * ms + number, attributes={"hub.task.name": "ask"}))
            for n in range(4):
                above = f"{version}-{number}" + ("/w2" if n == 3 else "")
                worker = lake.run(version, instance=f"{version}-{number}/w{n}")
                worker.trace(lake.span("hub.startup.worker", 50, attributes={"hub.startup.parent": above}))
                worker.trace(lake.span("task work", ms + n, attributes={"hub.task.name": "work"}))
    path = lake.write()
    made = report(path)
    tasks = [kpi for kpi in made.summary.kpis if kpi.name == "ux.task_completion_time"]
    assert [(kpi.runs, kpi.samples, len(kpi.points)) for kpi in tasks] == [(3, 15, 3)]
    assert tasks[0].value == pytest.approx(0.152, abs=0.002)  # the workers' own, beside one task of 0.3 s a run
    found = {c.dimensions.get("operation", c.metric): c for c in compare(path, "1", "2")}
    for operation in ("task ask", "task work"):
        assert (found[operation].runs_before, found[operation].runs_after) == (3, 3)
        assert found[operation].verdict == "worse"
    assert {(c.runs_before, c.runs_after) for c in found.values() if c.metric == "kpi"} <= {(3, 3)}

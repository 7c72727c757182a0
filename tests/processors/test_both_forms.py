"""The same spans and metrics give the same KPIs and violations in the collector and in the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from hubscope.processors.pipeline import processors
from hubscope.processors.rules import Rules


def through(batch: Any, rules: Rules) -> Any:
    for processor in processors(rules, None):
        batch = processor(batch)
    return batch


def a_busy_minute(call: Any, plugin: Any) -> list[Any]:
    calls = [
        call("hub.startup", 0.5, 2.2, {"hub.startup.type": "cold", "hub.startup.end": "interactive"}),
        call("hub.startup", 0.5, 1.5, {"hub.startup.type": "warm", "hub.startup.end": "exit"}),
        call("hub.startup.first_render", 0.5, 0.4),
    ]
    for n in range(60):
        start = 3 + n * 0.7
        work = [
            plugin(0.02, start, "p1", cpu_time=0.015),
            plugin(0.3, start + 0.01, "p2", "premium", cpu_time=0.29, memory_delta=120 * 2**20 if n == 7 else 0),
            call(
                "SELECT memories", start + 0.2, 0.001 * n, {"db.operation.name": "SELECT", "db.system.name": "sqlite"}
            ),
            call("search memories", start, 0.01, {"hub.vector.top_k": 5, "hub.vector.size": 1000}),
            call("upsert memories", start, 0.002, {"db.operation.batch.size": 50 if n % 2 else 1}),
        ]
        calls.append(
            call(
                "task answer",
                start,
                0.5 + 0.1 * n,
                {"hub.task.name": "answer", "hub.persona.id": f"persona-{n % 4}", "hub.task.first_action": n == 0},
                failed=n % 10 == 3,
                children=work,
            )
        )
        calls.append(call("GET /", start, 0.01 * n, kind=SpanKind.SERVER))
    return calls


def test_the_same_spans_give_the_same_kpi_values(
    application: Any, the_rules: Rules, call: Any, plugin_call: Any, derived_kpis: Any
) -> None:
    """Every KPI that spans feed has the same value and status in both forms."""
    app = application()
    spans = app.run(a_busy_minute(call, plugin_call))
    in_collector = derived_kpis(through(app.batch(spans), the_rules))
    in_application = app.kpis()
    assert in_collector.keys() == in_application.keys()
    assert len(in_collector) == 13
    for name, (value, status) in in_collector.items():
        assert in_application[name] == (pytest.approx(value, rel=1e-9), status), name
    assert in_collector["startup.cold"] == (pytest.approx(2.2), "pass")
    assert "startup.warm" not in in_collector  # it ended before it was interactive
    assert in_collector["scale.personas"] == (4.0, "unknown")  # four is no failure to bear ten


@pytest.mark.parametrize(("own_s", "status"), [(0.6, "unknown"), (0.4, "fail"), (None, "fail")])
def test_our_own_set_up_fails_no_start(
    own_s: float | None, status: str, application: Any, the_rules: Rules, call: Any, derived_kpis: Any
) -> None:
    """A start that misses its target by hubscope's own set-up alone is unknown in both forms; by more, it fails."""
    app = application()
    phases = [] if own_s is None else [call("hub.startup.phase instrumentation", 0.6, own_s)]
    about = {"hub.startup.type": "warm", "hub.startup.end": "interactive"}
    batch = app.batch(app.run([call("hub.startup", 0.5, 1.5, about, children=phases)]))
    expected = (pytest.approx(1.5), status)
    assert derived_kpis(through(batch, the_rules))["startup.warm"] == expected
    assert app.kpis()["startup.warm"] == expected


def test_the_same_spans_give_the_same_violations(
    application: Any, the_rules: Rules, call: Any, plugin_call: Any, derived_events: Any
) -> None:
    """Each violation has the same plugin, limit, observed value, trace and span in both forms, and so has the count."""
    app = application()
    spans = app.run(a_busy_minute(call, plugin_call))
    batch = through(app.batch(spans), the_rules)
    in_collector = derived_events(batch, "hub.quota.violation")
    in_application = [row for row in app.events() if row["EventName"] == "hub.quota.violation"]

    def facts(rows: list[dict[str, Any]]) -> list[Any]:
        return sorted(
            (
                row["TimestampUnixNano"],
                row["TraceId"],
                row["SpanId"],
                row["Body"],
                sorted(row["LogAttributes"]),
                row["PluginId"],
            )
            for row in rows
        )

    assert facts(in_collector) == facts(in_application)
    resources = {dict(row["LogAttributes"])["hub.quota.resource"] for row in in_collector}
    assert resources == {"memory", "cpu"}
    counted = {
        (dict(row["Attributes"])["hub.plugin.id"], dict(row["Attributes"])["hub.quota.resource"]): row["Value"]
        for row in batch.derived["otel_metrics_sum"].to_pylist()
    }
    assert counted == {
        (a["hub.plugin.id"], a["hub.quota.resource"]): p.value for a, p in app.metric("hub.quota.violations")
    }


def test_the_same_metrics_give_the_same_kpi_values(application: Any, the_rules: Rules, derived_kpis: Any) -> None:
    """KPIs that metrics feed agree although one form reads cumulative points and the other deltas."""
    app = application()
    requests = app.meter.create_counter("hub.cache.requests")
    requests.add(90, {"hub.cache.result": "hit"})
    requests.add(10, {"hub.cache.result": "miss"})
    rating = app.meter.create_histogram("hub.satisfaction")
    frames = app.meter.create_histogram("hub.ui.frame.duration", explicit_bucket_boundaries_advisory=[0.01, 0.02, 0.05])
    for value in (1.0, 0.5, 1.0, 0.0):
        rating.record(value)
    for _ in range(100):
        frames.record(0.02)
    app.meter.create_gauge("hub.startup.memory").set(300 * 2**20)
    app.meter.create_up_down_counter("process.memory.usage").add(100 * 2**20)
    in_collector = derived_kpis(through(app.metrics_batch(), the_rules))
    in_application = app.kpis()
    assert in_collector["memory.cache_hit_rate"] == (pytest.approx(0.9), "pass")
    assert in_collector["ux.satisfaction"] == (pytest.approx(2.5 / 4), "fail")
    assert in_collector["runtime.frame_rate"] == (pytest.approx(50.0), "fail")
    assert in_collector["startup.memory"] == (300.0 * 2**20, "fail")
    assert {n: (pytest.approx(v), s) for n, (v, s) in in_application.items()} == in_collector


def test_cumulative_points_are_counted_once(application: Any, the_rules: Rules, derived_kpis: Any) -> None:
    """A cumulative counter that is sent again and again adds only what is new."""
    app = application()
    requests = app.meter.create_counter("hub.cache.requests")
    chain = processors(the_rules, None)

    def send(segment: int) -> Any:
        batch = app.metrics_batch(segment)
        for processor in chain:
            batch = processor(batch)
        return derived_kpis(batch)

    requests.add(10, {"hub.cache.result": "miss"})
    assert send(1)["memory.cache_hit_rate"][0] == 0.0
    requests.add(30, {"hub.cache.result": "hit"})
    assert send(2)["memory.cache_hit_rate"][0] == pytest.approx(0.75)
    assert send(3).get("memory.cache_hit_rate") in (None, (pytest.approx(0.75), "fail"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.tuples(
            st.sampled_from(["p1", "p2"]),
            st.sampled_from(["standard", "premium", ""]),
            st.floats(0, 59),
            st.floats(0, 40),
            st.one_of(st.none(), st.integers(0, 200 * 2**20)),
            st.one_of(st.none(), st.floats(0, 4)),
            st.one_of(st.none(), st.lists(st.sampled_from(["network", "filesystem"]), min_size=1, unique=True)),
            st.one_of(st.none(), st.integers(0, 30 * 2**20)),
        ),
        max_size=25,
    )
)
def test_any_plugin_calls_violate_alike(
    data: list[Any], application: Callable[..., Any], the_rules: Rules, plugin_call: Any, derived_events: Any
) -> None:
    """Whatever plugins use, both forms see the same violations and the same overhead."""
    app = application()
    calls = []
    for id, tier, start, duration, memory, cpu, permissions, moved in data:
        used = {
            "memory_delta": memory,
            "cpu_time": cpu,
            "permissions": permissions,
            "network_bytes": moved,
            "disk_bytes": moved,
        }
        calls.append(plugin_call(duration, start, id, tier, **{k: v for k, v in used.items() if v is not None}))
    calls.sort(key=lambda c: c.start_s + c.duration_s)  # spans reach an exporter when they end
    batch = through(app.batch(app.run(calls)), the_rules)

    def facts(rows: list[dict[str, Any]]) -> list[Any]:
        return sorted((row["SpanId"], sorted(row["LogAttributes"])) for row in rows)

    told = [row for row in app.events() if row["EventName"] == "hub.quota.violation"]
    app.close()
    assert facts(derived_events(batch, "hub.quota.violation")) == facts(told)

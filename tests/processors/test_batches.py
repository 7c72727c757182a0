"""Batches: derived rows fit the lake, a replay derives the same, a flood stays bounded, bad state is left aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hubscope.errors import RetryableError
from hubscope.lake_schema import GAUGE, LOGS, ROLLUP, SCHEMAS, SUM
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import processors
from hubscope.processors.rules import Rules


def process(batch: Batch, chain: Sequence[Any]) -> Batch:
    for processor in chain:
        batch = processor(batch)
    return batch


def derived(batch: Batch) -> dict[str, list[dict[str, Any]]]:
    return {name: table.to_pylist() for name, table in batch.derived.items()}


@pytest.fixture
def minutes(application: Any, call: Any, plugin_call: Any) -> list[Batch]:
    """Ten batches of five seconds each, with requests that become slower and a plugin that hogs the CPU."""
    app = application()
    found, sent = [], 0
    for n in range(10):
        work = [plugin_call(4.0, 5 * n, cpu_time=0.3 * n), plugin_call(31.0, 5 * n, "p2")]
        spans = app.run([call("task t", 5 * n, 0.03 * n, {"hub.task.name": "t"}, children=work)])
        found.append(app.batch(spans[sent:], segment=n + 1))
        sent = len(spans)
    return found


def test_derived_rows_are_in_the_schema_and_name_their_scope(minutes: list[Batch], the_rules: Rules) -> None:
    """Every derived table has the lake's columns, and every row says that a processor made it and for whom."""
    chain = processors(the_rules, None)
    results = [process(batch, chain) for batch in minutes]
    names = {name for batch in results for name in batch.derived}
    assert names == {GAUGE, SUM, LOGS, "otel_metrics_exponential_histogram", ROLLUP}
    for batch in results:
        for name, table in batch.derived.items():
            assert table.schema.equals(SCHEMAS[name])
            if name != ROLLUP:  # an aggregate of our own, no OTLP data
                assert set(table["ScopeName"].to_pylist()) == {"hubscope.processors"}
            assert set(table["ServiceName"].to_pylist()) == {"hub"}
            assert set(table["ServiceVersion"].to_pylist()) == {"1"}


def test_a_violation_names_the_span_that_showed_it(minutes: list[Batch], the_rules: Rules, derived_events: Any) -> None:
    """Trace and span id of the event are those of the offending plugin call, which is in the batch."""
    batch = process(minutes[0], processors(the_rules, None))
    [event] = derived_events(batch, "hub.quota.violation")
    [span] = [row for row in batch.tables["otel_traces"].to_pylist() if row["PluginId"] == "p2"]
    assert (event["TraceId"], event["SpanId"]) == (span["TraceId"], span["SpanId"])
    assert event["ResourceAttributes"] == span["ResourceAttributes"]
    assert event["Body"] == "plugin p2 ran for 31 s in one call of on_search; its quota (execution) is 30 s"
    assert dict(event["LogAttributeTypes"])["hub.quota.limit"] == "double"


def test_a_replayed_segment_derives_the_same_rows(minutes: list[Batch], the_rules: Rules, tmp_path: Path) -> None:
    """After a crash at any segment, going on from an earlier one gives the rows that were derived the first time."""
    chain = processors(the_rules, tmp_path)
    first = [derived(process(batch, chain)) for batch in minutes]
    assert any(LOGS in rows for rows in first)
    for start in (9, 4, 0, 7):
        chain = processors(the_rules, tmp_path)  # a new process
        again = [derived(process(batch, chain)) for batch in minutes[start:]]
        assert again == first[start:]
    assert derived(process(minutes[5], chain)) == first[5]  # and within one process


def test_a_torn_snapshot_is_left_aside(minutes: list[Batch], the_rules: Rules, tmp_path: Path) -> None:
    """A snapshot that a power cut tore makes way for the one before it."""
    chain = processors(the_rules, tmp_path)
    first = [derived(process(batch, chain)) for batch in minutes[:3]]
    for name in ("kpis", "quotas", "derived"):
        torn = tmp_path / "processors" / f"{name}-{2:016d}.json"
        torn.write_text(torn.read_text()[:20])
    chain = processors(the_rules, tmp_path)
    assert [derived(process(batch, chain)) for batch in minutes[1:3]] == first[1:]


def test_snapshots_are_bounded(minutes: list[Batch], the_rules: Rules, tmp_path: Path) -> None:
    """As many as `KEPT` stay, whatever number of segments went through."""
    chain = processors(the_rules, tmp_path)
    for segment in range(1, 81):
        process(replace(minutes[0], segment=segment), chain)
    assert len(list((tmp_path / "processors").glob("kpis-*.json"))) == 64
    assert not list((tmp_path / "processors").glob("*.tmp"))


def test_a_state_that_cannot_be_written_is_retried(minutes: list[Batch], the_rules: Rules, tmp_path: Path) -> None:
    """The processor says so instead of going on with windows that a restart would lose, and works when it is mended."""
    (tmp_path / "processors").write_text("a file where a directory must be")
    chain = processors(the_rules, tmp_path)
    with pytest.raises(RetryableError, match="cannot be written"):
        process(minutes[0], chain)
    (tmp_path / "processors").unlink()
    assert derived(process(minutes[0], chain)) == derived(process(minutes[0], processors(the_rules, None)))


def test_a_flood_of_violations_is_told_in_part_and_counted_in_full(
    application: Any, the_rules: Rules, plugin_call: Any, derived_events: Any
) -> None:
    """10,000 violations of one plugin in one minute: 20 events, and a count of 10,000."""
    app = application()
    [span] = app.run([plugin_call(0.001, memory_delta=2**30)])
    one = app.batch([span])
    batch = replace(
        one, tables={"otel_traces": pa.concat_tables([one.tables["otel_traces"]] * 10_000).combine_chunks()}
    )
    batch = process(batch, processors(the_rules, None))
    assert len(derived_events(batch, "hub.quota.violation")) == 20
    assert [row["ValueInt"] for row in batch.derived[SUM].to_pylist()] == [10_000]


def test_a_thousand_plugins_are_told_apart(
    application: Any, the_rules: Rules, plugin_call: Any, derived_events: Any
) -> None:
    """Each of 1,000 plugins in a batch is judged by its own quota and window."""
    app = application()
    spans = app.run([plugin_call(0.5, id=f"p{n}", cpu_time=1.2 if n % 100 == 0 else 0.5) for n in range(1000)])
    batch = process(app.batch(spans), processors(the_rules, None))
    told = {row["PluginId"] for row in derived_events(batch, "hub.quota.violation")}
    assert told == {f"p{n}" for n in range(0, 1000, 100)}


def test_a_clock_that_is_ahead_does_not_move_the_window(
    application: Any, the_rules: Rules, call: Any, derived_kpis: Any
) -> None:
    """A span that ends an hour from now is left out of KPIs; the batch itself stays as it arrived."""
    app = application()
    spans = app.run([call("task t", 1, 0.05, {"hub.task.name": "t"}), call("task t", 7200, 9, {"hub.task.name": "t"})])
    arrived = app.batch(spans)
    batch = process(arrived, processors(the_rules, None))
    assert derived_kpis(batch)["ux.task_completion_time"][0] == pytest.approx(0.05)
    assert batch.tables == arrived.tables


def test_a_clock_that_goes_back_is_no_fast_operation(
    application: Any, the_rules: Rules, call: Any, derived_kpis: Any
) -> None:
    """A span with a negative duration gives no duration KPI, in either form."""
    app = application()
    batch = process(app.batch(app.run([call("task t", 10, -3, {"hub.task.name": "t"})])), processors(the_rules, None))
    assert "ux.task_completion_time" not in derived_kpis(batch)
    assert "ux.task_completion_time" not in app.kpis()


def test_rows_in_another_schema_are_refused() -> None:
    """What does not fit the lake is a ValueError that names the columns."""
    with pytest.raises(ValueError, match="not in the lake's schema"):
        Batch(1, 0).with_derived(LOGS, pa.table({"x": [1]}))


def test_plugin_overhead_is_of_operations_and_not_of_starts(
    application: Any, the_rules: Rules, call: Any, plugin_call: Any
) -> None:
    """Plugins in a request, also when its spans come in another batch, give overhead; those of a start give none."""
    app = application()
    start = app.run([call("hub.startup", 0, 3, {"hub.startup.type": "cold"}, children=[plugin_call(2, 0.5)])])
    request = app.run([call("task t", 5, 1, {"hub.task.name": "t"}, children=[plugin_call(0.5, 5.1)])])[len(start) :]
    chain = processors(the_rules, None)
    found = [process(app.batch(spans, n), chain) for n, spans in enumerate((start, request[:1], request[1:]), start=1)]
    tables = [batch.derived.get("otel_metrics_exponential_histogram") for batch in found]
    assert tables[:2] == [None, None]
    assert [(row["PluginId"], row["Sum"], row["Count"]) for row in tables[2].to_pylist()] == [
        (None, pytest.approx(0.5), 1),
        ("p1", pytest.approx(0.5), 1),
    ]
    assert [point.sum for _, point in app.metric("hub.plugin.overhead")] == [pytest.approx(0.5)] * 2

"""A collector that gets what another one derived stores it, and derives no second series beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubscope.collector.otlp.decode import decode
from hubscope.collector.otlp.encode import encode_derived
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, LOGS, ROLLUP, SUM
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import processors
from hubscope.processors.rules import Rules


def process(batch: Batch, chain: Any) -> Batch:
    for processor in chain:
        batch = processor(batch)
    return batch


def kpis_rolled_up(batch: Batch) -> int:
    return sum(row["Count"] for row in batch.derived[ROLLUP].to_pylist() if row["KpiName"])


def test_what_came_derived_is_stored_and_not_derived_again(
    application: Any, the_rules: Rules, call: Any, plugin_call: Any, tmp_path: Path
) -> None:
    """Behind a collector no KPI, overhead, violation or alert is told twice; what comes directly and later is, and so
    it is after a restart."""
    app, sent = application(), 0
    first, second = processors(the_rules, None), processors(the_rules, tmp_path)
    for n in range(1, 4):
        work = [plugin_call(31.0, 40 * n, "p2", cpu_time=9.0)]
        spans = app.run([call("task t", 40 * n, 35.0, {"hub.task.name": "t"}, children=work)])
        arrived, sent = app.batch(spans[sent:], segment=2 * n), len(spans)
        known = process(arrived, first)
        assert {GAUGE, SUM, LOGS, EXPONENTIAL_HISTOGRAM} <= known.derived.keys()
        forwarded = decode(encode_derived(known.derived, arrived.received_unix_nano))
        ahead = process(Batch(2 * n - 1, arrived.received_unix_nano, forwarded), second)  # a segment may end here
        assert ahead.tables[GAUGE].num_rows == known.derived[GAUGE].num_rows
        assert ahead.derived.keys() == {ROLLUP}
        assert kpis_rolled_up(ahead) == kpis_rolled_up(known)
        behind = process(arrived, second)
        assert behind.derived.keys() == {ROLLUP}
        assert not kpis_rolled_up(behind)
        assert behind.violating == known.violating  # sampling keeps these traces all the same
        second = processors(the_rules, tmp_path)  # a new process
    directly = app.run([call("task t", 170, 35.0, {"hub.task.name": "t"}, children=[plugin_call(31.0, 170.5, "p2")])])
    found = process(app.batch(directly[sent:], segment=7), second)
    assert {GAUGE, SUM, LOGS, EXPONENTIAL_HISTOGRAM} <= found.derived.keys()

"""Rollups in a real lake: exactly once, merged to one row a series and minute, there when the spans are gone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.analytics import history
from hubscope.analytics.connect import connect
from hubscope.analytics.engine import Engine
from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.segments import batch_of
from hubscope.console.main import main
from hubscope.exporters import lake_merge
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import ROLLUP, TRACES
from hubscope.processors.pipeline import chain
from hubscope.processors.rules_file import load

FIRST = 20_000
SEGMENTS = 40
SPANS = 50


def segment(number: int, chance: random.Random, day_ns: int) -> Any:
    """Spans of one service over 20 minutes of each of two days, two operations."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (("service.name", "hub"), ("service.version", "1"), ("service.instance.id", "run")):
        group.resource.attributes.add(key=key).value.string_value = value
    spans = group.scope_spans.add().spans
    for _ in range(SPANS):
        start_ns = (FIRST + number % 2) * day_ns + number // 2 * 60 * 10**9 + chance.randrange(60 * 10**9)
        name = chance.choice(("GET /", "POST /memory"))
        span = spans.add(name=name, kind=2, start_time_unix_nano=start_ns, trace_id=chance.randbytes(16))
        span.end_time_unix_nano = start_ns + int(chance.lognormvariate(15, 1))
        span.status.code = 2 if chance.random() < 0.1 else 0
    record = Record(Signal.TRACES, request.SerializeToString(), (FIRST + 2) * day_ns)
    return batch_of(number + 1, [record], chain(load(None), None))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rolled") / "lake"
    exporter = LakeExporter(str(folder), upkeep=False)
    chance = random.Random(7)
    for number in range(SEGMENTS):
        batch = segment(number, chance, 86_400 * 10**9)
        exporter.export(batch)
        exporter.export(batch)  # a replay
    return folder


EXACT = """
SELECT bucket_ns(TimestampUnixNano, 86400000000000) AS start_ns, SpanName AS operation, count(*) AS n,
    count(*) FILTER (StatusCode = 'Error') AS errors, avg(Duration) / 1e9 AS mean_s,
    quantile_disc(Duration, 0.5) / 1e9 AS p50_s, quantile_disc(Duration, 0.95) / 1e9 AS p95_s,
    quantile_disc(Duration, 0.99) / 1e9 AS p99_s, max(Duration) / 1e9 AS max_s
FROM otel_traces WHERE ServiceName = 'hub' GROUP BY 1, 2 ORDER BY 1, 2
"""


def test_rollups_say_what_the_spans_say_and_stay_when_these_are_gone(
    filled: Path, lakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and errors are equal, percentiles within 1.1 %, replays counted once; the same after the rollup's merge,
    and when the spans' retention is over. The merge leaves a row a series and minute."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 2)
    engine = Engine(connect(filled))
    exact = engine.run(EXACT)
    assert len(exact) == 4
    assert sum(row["n"] for row in exact) == SEGMENTS * SPANS
    last_day = lambda: (FIRST + 30) * lakes.DAY_S  # noqa: E731 - one line, used once
    upkeep = lakes.upkeep(filled, last_day, retention_s=7 * lakes.DAY_S, rollup_retention_s=365 * lakes.DAY_S)
    for step in ("written", "merged", "spans gone"):
        if step == "merged":
            upkeep.merge(ROLLUP)
            rows, minutes = engine_of(filled).connection.execute(
                "SELECT count(*), count(DISTINCT (TimeUnixNano, SpanName)) FROM hub_rollup WHERE MetricName IS NULL"
            ).fetchone() or (0, 1)
            assert rows == minutes == SEGMENTS * 2
        if step == "spans gone":
            upkeep.keep()
            assert lakes.seen(filled) == []
        found = history.operations(engine_of(filled), "hub")
        assert len(found) == len(exact)
        for row, wanted in zip(found, exact, strict=True):
            for name in ("start_ns", "operation", "n", "errors"):
                assert row[name] == wanted[name], (step, name)
            assert row["mean_s"] == pytest.approx(wanted["mean_s"])
            assert row["max_s"] == pytest.approx(wanted["max_s"])
            for name in ("p50_s", "p95_s", "p99_s"):
                assert row[name] == pytest.approx(wanted[name], rel=0.011), (step, name)
    assert {row["kpi"] for row in history.kpis(engine_of(filled), "hub")}
    assert len(connect(filled).execute(f"SELECT 1 FROM {TRACES}").fetchall()) == 0
    told = CliRunner().invoke(
        main, ["sql", "rollup_operations", "--lake", str(filled), "--service", "hub", "-p", "step_s=86400"]
    )
    assert told.exit_code == 0, told.output
    assert "POST /memory" in told.output


def engine_of(lake: Path) -> Engine:
    return Engine(connect(lake))

"""The lake's policy in a real collector: from the configuration file to /metrics, /healthz and `hubscope status`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.analytics.connect import connect
from hubscope.console.main import main

DAY_NS = 86_400 * 10**9


def test_days_past_their_age_leave_and_it_is_said(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """With a retention in the configuration, a day of 2024 leaves the lake; metrics, health and status tell of it."""
    (tmp_path / "c.yaml").write_text("exporters: {lake: {cold_after: 30d, retention: 90d}}")
    collector = new_collector("--config", str(tmp_path / "c.yaml"))
    collector.start()
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="old", start_time_unix_nano=20_000 * DAY_NS)
    headers = {"content-type": "application/x-protobuf"}
    url = f"http://{collector.addresses['http']}/v1/traces"
    assert httpx.post(url, content=request.SerializeToString(), headers=headers).status_code == 200
    collector.wait_for(lambda: spans(collector.lake) == 1, "the span is in the lake")
    assert collector.stop() == 0
    collector.start()  # the lake is looked at from the beginning, then each minute
    collector.wait_for(lambda: spans(collector.lake) == 0, "the day is gone")
    collector.wait_for(lambda: collector.health()["lake_upkeep"]["last_drop"], "health tells what was dropped")
    url = f"http://{collector.addresses['telemetry']}/metrics"
    collector.wait_for(lambda: "hubscope_lake_size_bytes{" in httpx.get(url).text, "the tables are measured")
    metrics = httpx.get(url).text
    assert 'hubscope_lake_dropped_rows_total{reason="age"} 1' in metrics  # a KPI of it has no time: it is of today
    assert 'hubscope_lake_size_bytes{table="otel_traces",tier="cold"} 0' in metrics
    assert "hubscope_lake_low_disk 0" in metrics.splitlines()
    status = CliRunner().invoke(main, ["status", "--lake", str(collector.lake)])
    assert "1 rows, 0.0 MiB (past its retention)" in status.output
    assert "dropped otel_traces of 2024-10-04: 1 rows" in collector.output


def spans(lake: Path) -> int:
    found = connect(lake).execute("SELECT count(*) FROM otel_traces").fetchone()
    return int(found[0]) if found else 0

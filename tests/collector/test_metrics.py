"""`/metrics` and `/healthz` of a running collector: what Prometheus reads, under the stock Collector's names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

PROTOBUF = {"Content-Type": "application/x-protobuf"}

# name -> (type, labels) as a stock Collector 0.140 writes them on :8888 without a configured reader. Left out are the
# labels that every sample of it has alike (service_*, otel_scope_*), and `data_type`: ours has one queue for all.
STOCK = {
    "otelcol_receiver_accepted_spans": ("counter", {"receiver", "transport"}),
    "otelcol_receiver_refused_spans": ("counter", {"receiver", "transport"}),
    "otelcol_receiver_accepted_metric_points": ("counter", {"receiver", "transport"}),
    "otelcol_receiver_refused_metric_points": ("counter", {"receiver", "transport"}),
    "otelcol_receiver_accepted_log_records": ("counter", {"receiver", "transport"}),
    "otelcol_receiver_refused_log_records": ("counter", {"receiver", "transport"}),
    "otelcol_exporter_sent_spans": ("counter", {"exporter"}),
    "otelcol_exporter_sent_metric_points": ("counter", {"exporter"}),
    "otelcol_exporter_sent_log_records": ("counter", {"exporter"}),
    "otelcol_exporter_send_failed_spans": ("counter", {"exporter"}),
    "otelcol_exporter_send_failed_metric_points": ("counter", {"exporter"}),
    "otelcol_exporter_send_failed_log_records": ("counter", {"exporter"}),
    "otelcol_exporter_queue_size": ("gauge", {"exporter"}),
    "otelcol_exporter_queue_capacity": ("gauge", {"exporter"}),
    "otelcol_process_uptime": ("counter", set()),
    "otelcol_process_cpu_seconds": ("counter", set()),
    "otelcol_process_memory_rss": ("gauge", set()),
}


@pytest.fixture(scope="module")
def text(shared_collector: Any) -> str:
    """What /metrics says after 7 spans, 2 points and 3 log records have reached the lake."""
    collector = shared_collector
    traces, metrics, logs = ExportTraceServiceRequest(), ExportMetricsServiceRequest(), ExportLogsServiceRequest()
    for number in range(7):
        traces.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=bytes([number] * 8))
    gauge = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="g").gauge
    for _ in range(2):
        gauge.data_points.add(as_int=1, time_unix_nano=1)
    for _ in range(3):
        logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    for signal, request in (("traces", traces), ("metrics", metrics), ("logs", logs)):
        url = f"http://{collector.addresses['http']}/v1/{signal}"
        assert httpx.post(url, content=request.SerializeToString(), headers=PROTOBUF).status_code == 200
    url = f"http://{collector.addresses['telemetry']}/metrics"

    waited_for = [f'{items}{{exporter="lake"}} {count}' for items, count in (("spans", 7), ("log_records", 3))]

    def written() -> str | None:
        found = httpx.get(url).text
        points = re.search(r'otelcol_exporter_sent_metric_points{exporter="lake"} (\d+)', found)
        if points is None or int(points[1]) < 2:
            return None
        return found if all(f"otelcol_exporter_sent_{n}\n" in found for n in waited_for) else None

    return str(collector.wait_for(written, "the rows are in the lake"))


def test_stock_names_types_and_labels(text: str) -> None:
    """Every stock metric that we have has the stock Collector's name, type and labels."""
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    samples = {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }
    for name, (kind, labels) in STOCK.items():
        assert kinds[name] == kind, name
        assert samples.get(name, samples.get(f"{name}_total")) == labels, name
    assert {name for name in kinds if name.startswith("otelcol_")} == set(STOCK)


def test_what_was_sent_is_what_is_counted(text: str) -> None:
    """7 spans, 2 points and 3 log records were accepted over HTTP, and as many are in the lake."""
    for items, count in (("spans", 7), ("metric_points", 2), ("log_records", 3)):
        assert f'otelcol_receiver_accepted_{items}{{receiver="otlp",transport="http"}} {count}\n' in text
        assert f'otelcol_receiver_accepted_{items}{{receiver="otlp",transport="grpc"}} 0\n' in text
        sent = float(text.partition(f'otelcol_exporter_sent_{items}{{exporter="lake"}} ')[2].partition("\n")[0])
        assert sent >= count if items == "metric_points" else sent == count  # KPI points are derived and written too


def test_memory_and_time_are_all_processes(text: str) -> None:
    """The sums are the sums of supervisor, front and worker."""
    values = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if not line.startswith("#")}
    parts = {name: value for name, value in values.items() if name.startswith("hubscope_process_memory_bytes{")}
    assert {p for p in ("supervisor", "front", "worker") if any(f'process="{p}"' in name for name in parts)} == {
        "supervisor",
        "front",
        "worker",
    }
    assert sum(parts.values()) == values["otelcol_process_memory_rss"] < values["hubscope_memory_limit_bytes"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_only_what_the_stock_collector_does(text: str) -> None:
    """Our own names are as Prometheus wants them; of the stock ones it misses the suffix that they never have."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    complaints = (done.stdout + done.stderr).splitlines()
    stock_counters = {name for name, (kind, _) in STOCK.items() if kind == "counter"}
    assert set(complaints) == {f'{name} counter metrics should have "_total" suffix' for name in stock_counters}


def test_health_says_less_to_strangers(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """With tokens: /metrics needs one, /healthz tells strangers two words and the rest to who has one."""
    (tmp_path / "c.yaml").write_text("receivers: {auth: {bearer_tokens: [tok-en-1234]}}\n")
    collector = new_collector("--config", str(tmp_path / "c.yaml"))
    collector.start()
    url = f"http://{collector.addresses['telemetry']}"
    known = {"Authorization": "Bearer tok-en-1234"}
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "ready": True}
    assert httpx.get(f"{url}/metrics").status_code == 401
    assert httpx.get(f"{url}/metrics", headers={"Authorization": "Bearer tok-en-123"}).status_code == 401
    whole = httpx.get(f"{url}/healthz", headers=known)
    assert whole.json()["lake"] == str(collector.lake)
    for answer in (whole, httpx.get(f"{url}/metrics", headers=known)):
        assert answer.status_code == 200
        assert "tok-en-1234" not in answer.text


def test_health_tells_what_is_wrong(new_collector: Callable[..., Any]) -> None:
    """A destination that is down is `degraded` with its name, while requests are taken all the same."""
    collector = new_collector("--forward", "http://127.0.0.1:9/v1")
    collector.start()
    assert collector.health()["status"] == "ok"
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    url = f"http://{collector.addresses['http']}/v1/traces"
    assert httpx.post(url, content=request.SerializeToString(), headers=PROTOBUF).status_code == 200
    health = collector.wait_for(
        lambda: collector.health() if collector.health().get("status") == "degraded" else None, "degraded"
    )
    assert health["ready"]
    assert "otlp-127.0.0.1-9" in health["reason"]
    assert json.loads(json.dumps(health)) == health

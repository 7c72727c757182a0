"""What deploy/ configures works with a real collector: a stock Collector sends here, a real Prometheus scrapes it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

REPOSITORY = Path(__file__).parent.parent.parent
READY_DEADLINE_S = 30.0
Row = dict[str, Any]


@contextmanager
def _running(output: Path, *command: str | Path, **environment: str) -> Iterator[None]:
    """The program while the block runs; one that ended by itself fails with what it said."""
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
    try:
        yield
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}:\n{output.read_text()}"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepted(url: str, body: bytes) -> bool:
    return _post(url, body) == 200


def _post(url: str, body: bytes) -> int | None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return None


def test_a_stock_collector_sends_here(
    go_build: Callable[..., Path],
    collector: Any,
    lake_rows: Callable[..., list[Row]],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """With deploy/otel-collector.yaml a stock OpenTelemetry Collector passes all three signals on to the lake."""
    program = go_build(REPOSITORY / "tests" / "deploy" / "otelcol", ".", "otelcol")
    http, output, now = free_port(), tmp_path / "otelcol.txt", time.time_ns()
    requests = (ExportTraceServiceRequest(), ExportMetricsServiceRequest(), ExportLogsServiceRequest())
    traces, metrics, logs = requests
    trace_id = os.urandom(16)
    for i in range(100):
        traces.resource_spans.add().scope_spans.add().spans.add(
            trace_id=trace_id,
            span_id=(i + 1).to_bytes(8),
            name=f"span {i}",
            start_time_unix_nano=now,
            end_time_unix_nano=now + i,
        )
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="passed.on", unit="1")
    metric.gauge.data_points.add(time_unix_nano=now, as_int=-5)
    logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=now).body.string_value = "passed on"
    variables = {
        "OTELCOL_FORWARD_TO": urlsplit(collector.grpc).netloc,
        "OTELCOL_GRPC": f"127.0.0.1:{free_port()}",
        "OTELCOL_HTTP": f"127.0.0.1:{http}",
        "OTELCOL_METRICS_PORT": str(free_port()),
    }
    with _running(output, program, "--config", REPOSITORY / "deploy" / "otel-collector.yaml", **variables):
        for path, request in zip(("traces", "metrics", "logs"), requests, strict=True):
            wait_until(
                partial(_accepted, f"http://127.0.0.1:{http}/v1/{path}", request.SerializeToString()),
                f"the stock Collector takes {path}",
                READY_DEADLINE_S,
                output.read_text,
            )
        spans = lake_rows(collector, "otel_traces", 100, TraceId=trace_id.hex())
        assert {row["SpanName"]: row["Duration"] for row in spans} == {f"span {i}": i for i in range(100)}
        assert len(spans) == 100
        (point,) = lake_rows(collector, "otel_metrics_gauge", 1, MetricName="passed.on")
        assert (point["ValueInt"], point["TimeUnixNano"]) == (-5, now)
        (record,) = lake_rows(collector, "otel_logs", 1, Body="passed on")
        assert record["TimestampUnixNano"] == now


def test_prometheus_scrapes_the_collector(
    tool: Callable[[str], str],
    collector: Any,
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """A real Prometheus with deploy/prometheus.yml finds the collector up and reads how many spans it accepted."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for i in range(7):
        spans.add(trace_id=b"\1" * 16, span_id=(i + 1).to_bytes(8), name="counted", start_time_unix_nano=time.time_ns())
    assert _post(f"{collector.http}/v1/traces", request.SerializeToString()) == 200

    text = (REPOSITORY / "deploy" / "prometheus.yml").read_text()
    assert "hubscope:8888" in text
    config, port, output = tmp_path / "prometheus.yml", free_port(), tmp_path / "prometheus.txt"
    here = text.replace("hubscope:8888", urlsplit(collector.telemetry).netloc)
    config.write_text(
        here.replace("scrape_interval: 15s", "scrape_interval: 1s").replace("_timeout: 10s", "_timeout: 1s")
    )

    def value(expression: str) -> float | None:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(expression)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(result[0]["value"][1]) if result else None

    command = [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with _running(output, *command, f"--web.listen-address=127.0.0.1:{port}"):
        wait_until(lambda: value('up{job="hubscope"}') == 1, "the target is up", READY_DEADLINE_S, output.read_text)
        wait_until(
            lambda: value("sum(otelcol_receiver_accepted_spans or otelcol_receiver_accepted_spans_total)") == 7,
            "7 spans were accepted",
            READY_DEADLINE_S,
            output.read_text,
        )


def test_prometheus_keeps_kpis_and_their_exemplars(
    tool: Callable[[str], str],
    collector: Any,
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """A real Prometheus scrapes /metrics/kpis: it answers a KPI, and the trace that a slow plugin call was of."""
    request, now = ExportTraceServiceRequest(), time.time_ns()
    above = request.resource_spans.add()
    above.resource.attributes.add(key="service.name").value.string_value = "scraped"
    found = above.scope_spans.add().spans
    start = found.add(trace_id=b"\1" * 16, span_id=b"\1" * 8, name="hub.startup", start_time_unix_nano=now - 2 * 10**9)
    for key, value in (("hub.startup.type", "cold"), ("hub.startup.end", "interactive")):
        start.attributes.add(key=key).value.string_value = value
    call = found.add(trace_id=b"\2" * 16, span_id=b"\3" * 8, name="plugin p r", start_time_unix_nano=now - 3 * 10**8)
    call.attributes.add(key="hub.plugin.id").value.string_value = "p"
    for span in found:
        span.end_time_unix_nano = now
    assert _post(f"{collector.http}/v1/traces", request.SerializeToString()) == 200

    here = urlsplit(collector.telemetry).netloc
    config, port, output = tmp_path / "prometheus.yml", free_port(), tmp_path / "prometheus.txt"
    text = (REPOSITORY / "deploy" / "prometheus.yml").read_text().replace("hubscope:8888", here)
    config.write_text(text.replace("interval: 15s", "interval: 1s").replace("_timeout: 10s", "_timeout: 1s"))

    def asked(path: str, **parameters: Any) -> Any:
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def kpi() -> Any:
        answer = asked("query", query='hubscope_kpi{service="scraped",kpi="startup.cold",target="< 3",status="pass"}')
        return answer and answer["result"] and float(answer["result"][0]["value"][1])

    def exemplars() -> Any:
        query = "hubscope_plugin_call_duration_seconds_bucket"
        answer = asked("query_exemplars", query=query, start=now / 1e9 - 600, end=now / 1e9 + 600)
        return [found["labels"] for series in answer or () for found in series["exemplars"]]

    command = [tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    command += ["--enable-feature=exemplar-storage", f"--web.listen-address=127.0.0.1:{port}"]
    with _running(output, *command):
        value = wait_until(kpi, "the KPI is known", READY_DEADLINE_S, output.read_text)
        assert value == pytest.approx(2.0, rel=0.05)
        shown = wait_until(exemplars, "the exemplar is known", READY_DEADLINE_S, output.read_text)
        assert shown == [{"trace_id": "02" * 16, "span_id": "03" * 8}]
        quantile = "histogram_quantile(0.5, sum by (le) (hubscope_plugin_call_duration_seconds_bucket))"
        answer = asked("query", query=quantile)
        assert 0.25 <= float(answer["result"][0]["value"][1]) <= 0.5

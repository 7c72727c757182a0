"""Unmodified Python programs under the stock `opentelemetry-instrument` send all three signals here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

Row = dict[str, Any]

PROGRAM = """
import logging, sqlite3
from opentelemetry import metrics, trace

tracer, meter = trace.get_tracer("app", "1.0"), metrics.get_meter("app", "1.0")
orders = meter.create_counter("orders", unit="{order}", description="Orders taken")
waits = meter.create_histogram("waits", unit="s")
cursor = sqlite3.connect(":memory:").cursor()  # the stock instrumentation sees no connection.execute
for i in range(50):
    with tracer.start_as_current_span("order", attributes={"number": i, "parts": ["a", "b"], "weight": i / 4}) as span:
        cursor.execute("SELECT ?", (i,)).fetchone()
        orders.add(1, {"even": i % 2 == 0})
        waits.record(i / 100)
        if i == 49:
            logging.getLogger("shop").error("order %d failed", i)
            span.record_exception(ValueError("no stock"))
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_program_under_the_stock_instrumentation_is_all_in_the_lake(
    protocol: str,
    compression: str,
    collector: Any,
    lake_rows: Callable[..., list[Row]],
    decoded: Callable[[Row], Row],
    tmp_path: Path,
) -> None:
    """Spans with their library's children, points and log records of the stock Python SDK arrive once each."""
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    environment = {
        **clean,
        "OTEL_PYTHON_DISTRO": "distro",  # the stock one, although hubscope's is installed
        "OTEL_PYTHON_CONFIGURATOR": "configurator",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "hubscope_sqlite3,hubscope_pluggy,hubscope_usearch,hubscope_process",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=one",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc if protocol == "grpc" else collector.http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        # Python's gRPC exporter refuses the word "none": not compressed is not set.
        **({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"} if compression == "gzip" else {}),
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
    }
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [str(instrument), sys.executable, str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Failed" not in done.stderr, done.stderr  # to configure itself, or to export

    spans = [decoded(row) for row in lake_rows(collector, "otel_traces", 100, ServiceName="shop")]
    own = {row["SpanAttributes"]["number"]: row for row in spans if row["ScopeName"] == "app"}
    queries = [row for row in spans if row["SpanKind"] == "Client"]
    assert (len(spans), len(own), len(queries)) == (100, 50, 50)
    assert own[7]["SpanAttributes"] == {"number": 7, "parts": ["a", "b"], "weight": 1.75}
    assert {row["ParentSpanId"] for row in queries} == {row["SpanId"] for row in own.values()}
    (exception,) = own[49]["Events"]
    assert exception["Attributes"]["exception.message"] == "no stock"

    counts = [decoded(row) for row in lake_rows(collector, "otel_metrics_sum", 2, MetricName="orders")]
    found = {(row["Attributes"]["even"], row["ValueInt"], row["MetricUnit"]) for row in counts}
    assert found == {(True, 25, "{order}"), (False, 25, "{order}")}
    (waits,) = lake_rows(collector, "otel_metrics_histogram", 1, MetricName="waits")
    assert (waits["Count"], waits["Min"], waits["Max"]) == (50, 0.0, 0.49)
    assert waits["Sum"] == pytest.approx(sum(i / 100 for i in range(50)))

    (record,) = lake_rows(collector, "otel_logs", 1, ServiceName="shop", ScopeName="shop")
    assert (record["Body"], record["SeverityText"]) == ("order 49 failed", "ERROR")
    assert (record["TraceId"], record["SpanId"]) == (own[49]["TraceId"], own[49]["SpanId"])


def test_what_arrived_is_found_by_sql(collector: Any, lake_rows: Callable[..., list[Row]], tmp_path: Path) -> None:
    """`hubscope sql` reads what a program sent while the collector is running."""
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "hubscope.console", "run", "--service", "shop", "--collector", collector.http]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    done = subprocess.run(
        [*command, "--", sys.executable, str(program)], env=clean, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lake_rows(collector, "otel_traces", 100, ServiceName="shop")

    query = "SELECT count(*) AS n, count(DISTINCT SpanId) AS spans FROM otel_traces WHERE SpanName = 'order'"
    asked = subprocess.run(
        [sys.executable, "-m", "hubscope.console", "sql", "--lake", str(collector.lake), "--format", "csv", query],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (asked.returncode, asked.stdout.split()) == (0, ["n,spans", "50,50"]), asked.stderr

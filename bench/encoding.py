"""What it costs to write telemetry as OTLP protobuf: ours beside the stock encoder, on the same items.

    python -m bench.encoding [--runs 15]

Prints Markdown tables. Both encoders get the same objects, made by the SDK, in turn within one process; a row is the
CPU time of the best of `--runs` batches of each, the exporting thread's other work left out. A row whose bytes parse to
different messages says so instead. Imports are in processes of their own, median of 5, beside one that has the SDK.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bench.overhead import _base, _table

BATCH = 512
ATTRIBUTES = {"app.user": "ada", "app.count": 7, "app.ratio": 0.5, "app.fresh": True, "app.path": "/recall/memories"}


class Case(NamedTuple):
    title: str
    items: int
    stock: Callable[[], Any]  # gives a protobuf message
    ours: Callable[[], Any]  # gives an `Encoded`


def _spans(title: str, attributes: Callable[[int], dict[str, Any]], *, events: bool = False) -> Case:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as stock
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hubscope.exporters.encoding.spans import encode_spans

    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("bench", "1.0")
    for root in range(BATCH // 8):
        with tracer.start_as_current_span("request", attributes=attributes(root * 8)):
            for child in range(7):
                with tracer.start_as_current_span("query", attributes=attributes(root * 8 + child + 1)) as span:
                    if events:
                        span.record_exception(ValueError("no such memory"))
    spans = memory.get_finished_spans()
    return Case(title, len(spans), lambda: stock(spans), lambda: encode_spans(spans))


def _metrics(title: str, *, exponential: bool = False, series: int = 64) -> Case:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as stock
    from opentelemetry.sdk.metrics import Histogram, MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
    from opentelemetry.sdk.resources import Resource

    from hubscope.exporters.encoding.metrics import encode_metrics

    reader = InMemoryMetricReader(
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()} if exponential else {}
    )
    meter = MeterProvider([reader], Resource.create({"service.name": "bench"})).get_meter("bench", "1.0")
    chance = random.Random(1)
    instruments = [meter.create_histogram(f"app.duration.{number}", "s", "what it took") for number in range(8)]
    for number in range(series):
        of_series = {"app.plugin": f"plugin {number // 8}", "app.hook": "recall", "app.fresh": number % 2 == 0}
        for _ in range(20):
            instruments[number % 8].record(chance.expovariate(1 / 50), of_series)
    data = reader.get_metrics_data()
    assert data is not None
    return Case(title, series, lambda: stock(data), lambda: encode_metrics(data))


def _counters(title: str, series: int = 256) -> Case:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics as stock
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource

    from hubscope.exporters.encoding.metrics import encode_metrics

    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], Resource.create({"service.name": "bench"})).get_meter("bench", "1.0")
    counters = [meter.create_counter(f"app.calls.{number}") for number in range(8)]
    for number in range(series):
        counters[number % 8].add(number * 1000, {"app.plugin": f"plugin {number // 8}", "app.hook": "recall"})
    data = reader.get_metrics_data()
    assert data is not None
    return Case(title, series, lambda: stock(data), lambda: encode_metrics(data))


def _logs(title: str) -> Case:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as stock
    from opentelemetry.sdk._logs import ReadWriteLogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from hubscope.exporters.encoding.logs import encode_logs

    resource, scope = Resource.create({"service.name": "bench"}), InstrumentationScope("bench.recall")
    chance = random.Random(1)
    records = []
    for number in range(BATCH):
        record = LogRecord(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=f"recalled {number} memories",
            attributes={"code.function.name": "recall", "code.file.path": "/app/recall.py", "code.line.number": 70},
        )
        record.trace_id, record.span_id = chance.getrandbits(128), chance.getrandbits(64)
        records.append(ReadWriteLogRecord(record, resource, scope))
    return Case(title, len(records), lambda: stock(records), lambda: encode_logs(records))


def _cases() -> Iterable[Case]:
    chance = random.Random(1)
    yield _spans("spans of 5 attributes", lambda number: ATTRIBUTES)
    yield _spans(
        "spans of 5 attributes, 3 of them new each time",
        lambda number: {
            **ATTRIBUTES,
            "app.user": f"{chance.getrandbits(64):016x}",
            "app.count": chance.getrandbits(40),
            "app.ratio": chance.random(),
        },
    )
    yield _spans("spans of 5 attributes, 7 of 8 with an exception", lambda number: ATTRIBUTES, events=True)
    yield _metrics("histogram points of 3 attributes, 15 bounds")
    yield _metrics("exponential histogram points of 3 attributes", exponential=True)
    yield _counters("counter points of 2 attributes")
    yield _logs("log records of 3 attributes, in traces")


def _best_us(runs: int, case: Case) -> tuple[float, float]:
    """CPU µs an item of the stock encoder and of ours: the best run of each, in turn."""
    best = [float("inf"), float("inf")]
    repeats = -(-BATCH // case.items)
    calls = (lambda: case.stock().SerializeToString(), lambda: case.ours().payload)
    for _ in range(runs):
        for which, call in enumerate(calls):
            began = time.process_time()
            for _ in range(repeats):
                call()
            best[which] = min(best[which], time.process_time() - began)
    return best[0] / repeats / case.items * 1e6, best[1] / repeats / case.items * 1e6


def encoding(runs: int) -> None:
    """Each signal's items, in batches as an exporter gets them."""
    rows = []
    for case in _cases():
        message = case.stock()
        if type(message).FromString(case.ours().payload) != message:
            rows.append((case.title, "", "", "the messages differ"))
            continue
        stock_us, ours_us = _best_us(runs, case)
        rows.append((case.title, f"{stock_us:.2f}", f"{ours_us:.2f}", f"{ours_us / stock_us:.3f}"))
    head = ("items", "stock, µs an item", "hubscope, µs an item", "hubscope / stock")
    _table(f"Encoding alone (CPU, best of {runs} batches)", head, rows)


def imports() -> None:
    """What importing an encoder adds to a process that has the SDK."""
    sdk = "import opentelemetry.sdk.trace, opentelemetry.sdk.metrics.export, opentelemetry.sdk._logs"
    common = "opentelemetry.exporter.otlp.proto.common"
    programs = (
        ("the SDK alone", sdk),
        ("and the stock encoders", f"{sdk}, {common}.trace_encoder, {common}.metrics_encoder, {common}._log_encoder"),
        (
            "and ours",
            f"{sdk}, " + ", ".join(f"hubscope.exporters.encoding.{name}" for name in ("spans", "metrics", "logs")),
        ),
    )
    taken: dict[str, list[float]] = {name: [] for name, _ in programs}
    for _ in range(5):
        for name, text in programs:
            program = f"import time\nbegan = time.process_time()\n{text}\nprint(time.process_time() - began)"
            done = subprocess.run(
                [sys.executable, "-c", program], env=_base(), capture_output=True, text=True, check=True
            )
            taken[name].append(float(done.stdout) * 1000)
    alone = statistics.median(taken["the SDK alone"])
    rows = []
    for name, _ in programs:
        took = statistics.median(taken[name])
        rows.append((name, f"{took:.1f}", f"{took - alone:.1f}"))
    _table("Importing (CPU, median of 5)", ("imported", "ms", "added, ms"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="batches of each row (default 15)")
    chosen = parser.parse_args()
    import google.protobuf
    import opentelemetry.sdk.version as sdk

    print("## Encoding OTLP\n")
    print(
        f"Python {platform.python_version()}, SDK {sdk.__version__}, protobuf {google.protobuf.__version__}, "
        f"{os.cpu_count()} CPUs, {platform.machine()}."
    )
    encoding(chosen.runs)
    imports()


if __name__ == "__main__":
    main()

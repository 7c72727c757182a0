"""A day of small appends: how many files they leave, how large the log becomes, and how fast the lake opens.

    python -m bench.small_appends [--requests 1000000] [--commits 172800] [--imports 1000] [--folder DIR]

A million requests of one span over 24 h are 12 a second. The collector's segments are half a second long, so they are
172,800 commits of the spans' table, each made here as the collector makes it; the fewer the commits, the shorter the
simulated day. Every 20th segment also holds a gauge, a sum and a histogram point (a metric export every 10 s), every
fourth a log record, and each its rollup. The clock is simulated: rows have the times of the day, upkeep is called as
often as it comes due in that time, and files of the log are made as old as they would be. What the grace for readers
keeps an hour is removed every simulated hour. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from hubscope.analytics.connect import connect
from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.exporters import lake_upkeep
from hubscope.exporters.lake import LakeExporter
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.lake_upkeep import Upkeep
from hubscope.lake_paths import files_of
from hubscope.lake_schema import LOGS, SCHEMAS, TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.rollup import Rollup

SEGMENT_NS = 500_000_000
NOON_NS = 20_000 * 86_400 * 10**9 + 43_200 * 10**9  # so that the day has a midnight in it
METRICS_EVERY, LOGS_EVERY = 20, 4
KEEP_EVERY, VACUUM_EVERY = 120, 7_200  # commits: a minute and an hour
LOG_KEPT = 1_200  # commits of the ten minutes that delta.logRetentionDuration says
OPENINGS = 20


def templates(spans: int) -> dict[str, pa.Table]:
    """Rows of one segment, of which only the times will differ."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    traces, logs, metrics = ExportTraceServiceRequest(), ExportLogsServiceRequest(), ExportMetricsServiceRequest()
    groups: list[Any] = [traces.resource_spans.add(), logs.resource_logs.add(), metrics.resource_metrics.add()]
    for group in groups:
        for key, value in (("service.name", "bench"), ("service.version", "1"), ("service.instance.id", "bench-1")):
            group.resource.attributes.add(key=key).value.string_value = value
    for number in range(spans):
        name = ("GET /memories", "SELECT memories", "plugin on_query", "search")[number % 4]
        span = groups[0].scope_spans.add().spans.add(name=name, kind=2, trace_id=os.urandom(16), span_id=os.urandom(8))
        span.start_time_unix_nano, span.end_time_unix_nano = NOON_NS, NOON_NS + 10_000_000 * (number + 1)
    groups[1].scope_logs.add().log_records.add(time_unix_nano=NOON_NS, severity_number=9).body.string_value = "a line"
    found = groups[2].scope_metrics.add().metrics
    found.add(name="g").gauge.data_points.add(time_unix_nano=NOON_NS, as_double=1.0)
    found.add(name="s").sum.data_points.add(time_unix_nano=NOON_NS, as_int=1)
    found.add(name="h").histogram.data_points.add(time_unix_nano=NOON_NS, count=1, bucket_counts=[1, 0])
    payloads = ((Signal.TRACES, traces), (Signal.LOGS, logs), (Signal.METRICS, metrics))
    return decode([Record(signal, message.SerializeToString(), NOON_NS) for signal, message in payloads])


def at(rows: pa.Table, time_ns: int) -> pa.Table:
    """The rows at another time."""
    for column, value in (
        ("Date", time_ns // (86_400 * 10**9)),
        *((name, time_ns // 1000) for name in ("Timestamp", "TimeUnix")),
        *((name, time_ns) for name in ("TimestampUnixNano", "TimeUnixNano")),
    ):
        if column in rows.column_names:
            index = rows.column_names.index(column)
            field = rows.schema.field(index)
            kind = pa.int32() if column == "Date" else pa.int64()
            rows = rows.set_column(index, field, pa.array([value] * rows.num_rows, kind).cast(field.type))
    return rows


def age_log(lake: Path, aged: dict[str, int]) -> None:
    """Make the log's files of ten simulated minutes ago as old as that; the next checkpoint removes them."""
    old_s = time.time() - 7_200
    for name in SCHEMAS:
        log = lake / name / "_delta_log"
        newest = max((int(path.stem) for path in log.glob("*.json") if path.stem.isdigit()), default=0)
        for version in range(aged.get(name, 0), max(0, newest - LOG_KEPT)):
            for path in log.glob(f"{version:020d}.*"):
                os.utime(path, (old_s, old_s))
        aged[name] = max(aged.get(name, 0), newest - LOG_KEPT)


def fill(lake: Path, requests: int, commits: int, say: Callable[[str], None]) -> tuple[float, float]:
    """Make the commits. Returns ms a segment, of the first and the last thousand."""
    exporter = LakeExporter(str(lake), upkeep=False)
    now_ns = NOON_NS
    upkeep = Upkeep(str(lake), {}, None, lambda: now_ns / 1e9)
    upkeep._policy = LakePolicy(min_free_disk_bytes=0)
    spans = templates(-(-requests // commits))
    some = templates(requests // commits)[TRACES] if requests // commits else spans[TRACES].slice(0, 0)
    rollup = Rollup()
    made: dict[str, int] = {}
    aged: dict[str, int] = {}
    left = requests
    took_s: list[float] = []
    for number in range(1, commits + 1):
        now_ns = NOON_NS + number * SEGMENT_NS
        want = round(requests * number / commits) - (requests - left)
        tables = {TRACES: at(spans[TRACES].slice(0, want) if want > some.num_rows else some.slice(0, want), now_ns)}
        left -= want
        for name in spans:
            if name != TRACES and number % (LOGS_EVERY if name == LOGS else METRICS_EVERY) == 0:
                tables[name] = at(spans[name], now_ns)
        batch = rollup(Batch(number, now_ns, tables))
        begun_s = time.perf_counter()
        exporter.export(batch)
        took_s.append(time.perf_counter() - begun_s)
        for name in (*tables, *batch.derived):
            made[name] = made.get(name, 0) + 1
            if made[name] % lake_upkeep.COMMITS_BETWEEN == 0:
                upkeep.merge(name)
        if number % KEEP_EVERY == 0:
            upkeep.keep()
        if number % 100 == 0:
            age_log(lake, aged)
        if number % VACUUM_EVERY == 0:
            for name in SCHEMAS:
                upkeep._clean(name, 0.0, now=True)
            say(f"{number:,} of {commits:,} segments, {statistics.fmean(took_s[-1000:]) * 1000:.1f} ms each")
    return statistics.fmean(took_s[:1000]) * 1000, statistics.fmean(took_s[-1000:]) * 1000


def imports(lake: Path, count: int) -> None:
    """Small imports, each an application of its own, whose transaction stays in the log for ever."""
    rows = at(templates(1)[TRACES], NOON_NS)
    exporter = LakeExporter(str(lake), upkeep=False)
    for number in range(count):
        exporter.application = f"hubscope-import/{number:064x}"
        exporter._versions.clear()
        exporter.export(Batch(1, NOON_NS, {TRACES: rows}))
    upkeep = Upkeep(str(lake), {})
    upkeep._policy = LakePolicy(min_free_disk_bytes=0)
    upkeep.merge(TRACES)


def opening_ms(lake: Path) -> list[float]:
    found = []
    for _ in range(OPENINGS):
        begun_s = time.perf_counter()
        connect(lake).close()
        found.append((time.perf_counter() - begun_s) * 1000)
    return sorted(found)


def describe(lake: Path, label: str) -> str:
    """A row of the table of lakes."""
    names = [name for name in SCHEMAS if files_of(DeltaTable(f"{lake}/{name}"))]
    files = {name: files_of(DeltaTable(f"{lake}/{name}")) for name in names}
    logs = [path for name in names for path in (lake / name / "_delta_log").iterdir()]
    on_disk = sum(1 for name in names for _ in (lake / name).glob("Date=*/*.parquet"))
    opened = opening_ms(lake)
    return (
        f"| {label} | {sum(map(len, files.values()))} | {max(map(len, files.values()))} | {on_disk:,} | {len(logs):,} "
        f"| {sum(path.stat().st_size for path in logs) / 2**20:.1f} | {statistics.median(opened):.0f} "
        f"| {opened[int(0.95 * OPENINGS)]:.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.small_appends", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--commits", type=int, default=172_800, help="of the spans' table; 172,800 are a day")
    parser.add_argument("--imports", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="where the lake is made; a temporary folder if not given")
    options = parser.parse_args()
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731 - one line
    with tempfile.TemporaryDirectory(prefix="hubscope-bench-", dir=options.folder) as folder:
        lake = Path(folder) / "lake"
        begun_s = time.monotonic()
        first_ms, last_ms = fill(lake, options.requests, options.commits, say)
        hours = options.commits * SEGMENT_NS / 3600e9
        print("### Small appends\n")
        print(
            f"{options.requests:,} requests in {options.commits:,} segments, {hours:.1f} simulated hours, made in "
            f"{(time.monotonic() - begun_s) / 60:.0f} min. A segment's commits took {first_ms:.1f} ms at first, "
            f"{last_ms:.1f} ms at last.\n"
        )
        print(
            "| | files | most in a table | with replaced ones | files of the logs | their MiB | opening p50, ms | p95 |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        print(describe(lake, "after the last segment"), flush=True)
        found = connect(lake).execute("SELECT count(*) FROM otel_traces").fetchone()
        if options.imports:
            imports(lake, options.imports)
            print(describe(lake, f"after {options.imports:,} imports more"))
        if found != (options.requests,):
            print(f"\n{found} spans are in the lake", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A trace by its id among ten million spans: how long it takes, and what the bloom filters have to do with it.

    python -m bench.trace_lookup [--spans 10000000] [--lookups 200] [--folder DIR]

The lake is written by the collector's exporter, segments of about 65,000 spans over four days, and merged by its
upkeep as in life. Each look-up is what `hubscope trace` asks (sql/trace_spans.sql), of another trace each time, over
one connection; opening it is counted by itself, and so is the whole command. "Without" compares an expression instead
of the column, so that DuckDB can skip nothing. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from bench.report import TRAFFIC, prototype, traces
from hubscope.analytics.connect import connect
from hubscope.analytics.engine import Engine, source
from hubscope.exporters.lake import LakeExporter
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.lake_upkeep import COMMITS_BETWEEN, Upkeep
from hubscope.lake_paths import files_of
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch

SEGMENT_SPANS = 65_000
DAYS = 4
BEGIN_NS = 20_000 * 86_400 * 10**9
OPENINGS = 10
FULL_SCANS = 5


def fill(lake: Path, spans: int) -> int:
    """Write the lake; how many spans it has."""
    rng = np.random.default_rng(1)
    shapes = [(shape("1"), service, share) for shape, service, share in TRAFFIC]
    rows = [prototype(shape, service, "1") for shape, service, _ in shapes]
    each = sum(len(shape) * share for shape, _, share in shapes) / 100
    segments = max(1, round(spans / SEGMENT_SPANS))
    exporter = LakeExporter(str(lake), upkeep=False)
    upkeep = Upkeep(str(lake), {})
    upkeep._policy = LakePolicy(min_free_disk_bytes=0, reader_grace_s=0.0)
    written = 0
    for segment in range(segments):
        begin_ns = BEGIN_NS + segment * DAYS * 86_400 * 10**9 // segments
        count = int(SEGMENT_SPANS / each)
        parts = [
            traces(shape, proto, f"{service}-1", begin_ns, count * share // 100, rng)
            for (shape, service, share), proto in zip(shapes, rows, strict=True)
        ]
        table = pa.concat_tables(parts)
        written += table.num_rows
        exporter.export(Batch(segment + 1, begin_ns, {TRACES: table}))
        if (segment + 1) % COMMITS_BETWEEN == 0:
            upkeep.merge(TRACES)
    upkeep.merge(TRACES)
    upkeep._clean(TRACES, 0.0, now=True)
    return written


def times_ms(do: Callable[[int], object], count: int) -> list[float]:
    found = []
    for number in range(count):
        begun_s = time.perf_counter()
        do(number)
        found.append((time.perf_counter() - begun_s) * 1000)
    return sorted(found)


def row(label: str, found: list[float]) -> str:
    p95 = found[min(len(found) - 1, int(0.95 * len(found)))]
    return f"| {label} | {len(found)} | {statistics.median(found):.1f} | {p95:.1f} | {found[-1]:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trace_lookup", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the lake is made; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hubscope-bench-", dir=options.folder) as folder:
        lake = Path(folder) / "lake"
        written = fill(lake, options.spans)
        files = files_of(DeltaTable(f"{lake}/{TRACES}"))
        size = sum(file.size_bytes for file in files)
        opened = times_ms(lambda _: connect(lake).close(), OPENINGS)
        engine = Engine(connect(lake))
        # Two look-ups for each id wanted: one is asked with the filters, another, not seen before, without.
        asked = f"SELECT DISTINCT TraceId FROM otel_traces USING SAMPLE {options.lookups * 4} ROWS (reservoir, 7)"
        ids = [trace_id for (trace_id,) in engine.connection.execute(asked).fetchall()]
        present, others = ids[: options.lookups], ids[options.lookups : options.lookups + FULL_SCANS]
        spans = [len(engine.rows("trace_spans", trace_id=trace_id)) for trace_id in present[:3]]
        whole = source("trace_spans").replace("TraceId = $trace_id", "concat(TraceId, '') = $trace_id")
        assert whole != source("trace_spans")
        print("### A trace by its id\n")
        print(
            f"{written:,} spans in {len(files)} files, {size / 2**20:,.0f} MiB; traces of {spans[0]} and more spans\n"
        )
        print("| | times | p50, ms | p95, ms | most, ms |")
        print("| --- | ---: | ---: | ---: | ---: |")
        print(row("opening the lake", opened))
        look = lambda trace_id: engine.rows("trace_spans", trace_id=trace_id)  # noqa: E731 - one line
        print(row("a trace that is there", times_ms(lambda n: look(present[n]), len(present))))
        print(row("one that is not", times_ms(lambda n: look(f"{n:032x}"), options.lookups)))
        print(row("without filters", times_ms(lambda n: engine.run(whole, trace_id=others[n]), len(others))))
        command = [sys.executable, "-m", "hubscope.console", "trace", "--lake", str(lake)]
        run = lambda n: subprocess.run([*command, others[n]], check=True, capture_output=True)  # noqa: E731 - one line
        print(row("`hubscope trace`, the whole command", times_ms(run, len(others))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

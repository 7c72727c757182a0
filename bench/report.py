"""Report time and peak memory on 1 million and 10 million spans: python -m bench.report [--spans N …]

The lake is written as Arrow rows in the lake's schema by a seeded generator whose traces have the shapes of the
reference hub's: a task, a memory operation, queries, a vector search, plugin calls. Each report runs in a process of
its own, so that its peak memory is its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from hubscope import lake_schema

START_NS = 1_767_225_600_000_000_000
RUNS = 10  # five of each version
CHUNK_TRACES = 25_000

# One trace: name, parent's place, share of the root's time, hot columns. Twelve spans.
SHAPE: tuple[tuple[str, int, float, dict[str, str]], ...] = (
    ("task answer_question", -1, 1.0, {"TaskName": "answer_question"}),
    ("search_memory memories", 0, 0.5, {}),
    ("search memories", 1, 0.1, {"DbSystem": "usearch", "DbOperation": "search", "DbCollection": "memories"}),
    *(
        (f"SELECT {table}", 1, 0.06, {"DbSystem": "sqlite", "DbOperation": "SELECT", "DbCollection": table,
                                      "DbQuerySummary": f"SELECT {table} #{table[:3]}001"})
        for table in ("memories", "tags", "personas", "packages", "modules")
    ),
    *(
        (f"plugin {plugin} enrich", 0, 0.05, {"PluginId": plugin, "PluginHook": "enrich"})
        for plugin in ("citations", "glossary", "ask-back")
    ),
    ("UPDATE memories", 0, 0.04, {"DbSystem": "sqlite", "DbOperation": "UPDATE", "DbCollection": "memories",
                                  "DbQuerySummary": "UPDATE memories #upd001"}),
)  # fmt: skip


def rows(first_trace: int, traces: int, run: int, rng: np.random.Generator) -> pa.Table:
    """`traces` traces of one run; ids count up, so that no two are the same."""
    width = len(SHAPE)
    n = traces * width
    schema = lake_schema.SCHEMAS[lake_schema.TRACES]
    root_ns = (rng.lognormal(np.log(0.04), 0.3, traces) * 1e9).astype(np.int64)
    begin = START_NS + run * 3_600_000_000_000 + np.arange(traces, dtype=np.int64) * 50_000_000
    place = np.tile(np.arange(width), traces)
    share = np.array([s[2] for s in SHAPE])[place] * rng.lognormal(0, 0.1, n)
    duration = np.maximum((np.repeat(root_ns, width) * share).astype(np.int64), 1000)
    start = np.repeat(begin, width) + place * 1_000_000
    ids = np.arange(first_trace * width, first_trace * width + n)
    trace_ids = np.repeat([f"{t:032x}" for t in range(first_trace, first_trace + traces)], width)
    span_ids = np.array([f"{i + 1:016x}" for i in ids])
    parents = np.array([s[1] for s in SHAPE])[place]
    parent_index = np.clip(np.arange(n) - place + parents, 0, n - 1)
    columns: dict[str, pa.Array] = {
        "Date": pa.array([datetime.fromtimestamp(START_NS // 10**9, UTC).date()] * n),
        "Timestamp": pa.array(start // 1000, pa.timestamp("us", tz="UTC")),
        "TimestampUnixNano": pa.array(start),
        "TraceId": pa.array(trace_ids),
        "SpanId": pa.array(span_ids),
        "ParentSpanId": pa.array(np.where(parents < 0, "", span_ids[parent_index])),
        "SpanName": pa.array(np.array([s[0] for s in SHAPE])[place]),
        "SpanKind": pa.array(["Internal"] * n),
        "ServiceName": pa.array(["hub"] * n),
        "Duration": pa.array(duration),
        "StatusCode": pa.array(["Unset"] * n),
        "StatusMessage": pa.array([""] * n),
        "ServiceInstanceId": pa.array([f"run-{run}"] * n),
        "ServiceVersion": pa.array(["1" if run < RUNS // 2 else "2"] * n),
    }
    for column in ("TaskName", "DbSystem", "DbOperation", "DbCollection", "DbQuerySummary", "PluginId", "PluginHook"):
        values = [spec[3].get(column) for spec in SHAPE]
        columns[column] = pa.array(np.array(values, dtype=object)[place], pa.string())
    keys = [("hub.vector.top_k", "10") if s[0].startswith("search m") else ("thread.id", "1") for s in SHAPE]
    flat_keys = np.array([k for k, _ in keys])[place]
    flat_values = np.array([v for _, v in keys])[place]
    columns["SpanAttributes"] = pa.MapArray.from_arrays(
        pa.array(np.arange(n + 1), pa.int32()), pa.array(flat_keys), pa.array(flat_values)
    )
    arrays = [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def make_lake(path: Path, spans: int, seed: int = 1) -> int:
    """Writes about `spans` spans and returns how many."""
    rng = np.random.default_rng(seed)
    table = DeltaTable.create(
        str(path / lake_schema.TRACES), lake_schema.SCHEMAS[lake_schema.TRACES], partition_by=["Date"]
    )
    traces, written = spans // len(SHAPE), 0
    for run in range(RUNS):
        left = traces // RUNS
        while left:
            count = min(left, CHUNK_TRACES)
            write_deltalake(table, rows(written, count, run, rng), mode="append")
            written += count
            left -= count
    return written * len(SHAPE)


MEASURE = """
import resource, sys, time
from hubscope.analytics import report
begin = time.perf_counter()
made = report(sys.argv[1])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - begin, peak, len(made.bottlenecks), len(made.comparisons))
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    print("| spans | write, s | report, s | peak memory, MiB | spans/s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for spans in given.spans:
        folder = Path(tempfile.mkdtemp(prefix="hubscope-bench-"))
        try:
            begin = time.perf_counter()
            count = make_lake(folder, spans, given.seed)
            wrote = time.perf_counter() - begin
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            took, peak, _, _ = (float(part) for part in done.stdout.split())
            print(f"| {count:,} | {wrote:.1f} | {took:.1f} | {peak:.0f} | {count / took:,.0f} |", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

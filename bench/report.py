"""Report time and peak memory on 1 million and 10 million spans: python -m bench.report [--spans N …]

The lake is written by a seeded generator in the shapes of the reference hub (tasks, memory operations with one query
an item, vector searches, plugin calls, starts with their imports) and of a Datasette (requests with plugin hooks and
PRAGMAs), with random ids and full attribute maps, in files as the collector leaves them after compaction. Each report
runs in a process of its own, so that its peak memory is its own. Prints a Markdown table.

There is no peer to time a report against: Jaeger and otel-desktop-viewer answer for one trace or for one search, and
none of them compares versions or names causes. For scale, the time DuckDB takes for one bare percentile query over the
same files stands beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties, write_deltalake

from hubscope import lake_schema
from hubscope.semconv import HOT_COLUMNS

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
RUNS = 10  # five of each version
RUN_NS = 2 * 3_600_000_000_000
# With zstd some 30 MiB: what merging files of 4 MiB into files of up to 128 MiB leaves of half a million rows.
ROWS_A_FILE = 500_000


@dataclasses.dataclass(frozen=True)
class Span:
    """One span of a trace's shape. `ms` is its typical duration, `parent` its parent's place in the shape."""

    name: str
    parent: int
    ms: float
    kind: str = "Internal"
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def query(table: str, text: str, parent: int, ms: float, rows: int) -> Span:
    operation = text.split()[0]
    attributes = {
        "db.system.name": "sqlite",
        "db.namespace": "hub.db",
        "db.collection.name": table,
        "db.operation.name": operation,
        "db.query.text": text,
        "db.query.summary": f"{operation} {table} #{abs(hash_of(text)):06x}",
        "db.response.returned_rows": str(rows),
    }
    return Span(f"{operation} {table}", parent, ms, attributes=attributes)


def hash_of(text: str) -> int:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(text)) & 0xFFFFFF


def plugin(plugin_id: str, hook: str, parent: int, ms: float) -> Span:
    attributes = {"hub.plugin.id": plugin_id, "hub.plugin.hook": hook, "hub.plugin.tier": "standard"}
    return Span(f"plugin {plugin_id} {hook}", parent, ms, attributes=attributes)


def answer(version: str) -> list[Span]:
    """A question answered: in version 1 with one query for each of 40 memories found, in version 2 with one for all."""
    one = "SELECT * FROM memories WHERE id = ?"
    many = "SELECT * FROM memories WHERE id IN (?)"
    loads = [query("memories", one, 1, 1.4, 1) for _ in range(40)] if version == "1" else []
    loads = loads or [query("memories", many, 1, 4.0, 40)]
    search = {"db.system.name": "usearch", "db.operation.name": "search", "db.collection.name": "memories"}
    search |= {"hub.vector.top_k": "40", "hub.vector.size": "8000", "hub.vector.index_type": "flat"}
    return [
        Span("task answer_question", -1, 110.0, attributes={"hub.task.name": "answer_question"}),
        Span("search_memory memories", 0, 80.0, attributes={"hub.persona.id": "researcher"}),
        Span("search memories", 1, 3.0, attributes=search),
        *loads,
        plugin("citations", "enrich", 0, 9.0),
        plugin("glossary", "enrich", 0, 4.0),
        query("memories", "UPDATE memories SET last_accessed = ? WHERE id = ?", 0, 0.7, 1),
    ]


def page(version: str) -> list[Span]:
    """A page of a Datasette: hooks, catalogue queries and one query of data."""
    hooks = ("filters_from_request", "register_facet_classes", "menu_links", "extra_body_script", "render_cell")
    return [
        Span("GET /{database}/{table}", -1, 45.0, "Server", {"http.request.method": "GET", "http.route": "/x"}),
        *(plugin(f"datasette.{hook}", hook, 0, 0.3) for hook in hooks),
        *(query("sqlite_master", f"SELECT {i} FROM sqlite_master WHERE tbl_name = ?", 0, 0.05, 4) for i in "abc"),
        *(query(f"table_{i}", f"PRAGMA table_info(table_{i})", 0, 0.03, 12) for i in range(4)),
        query("cities", "SELECT * FROM cities WHERE country = ? ORDER BY name LIMIT 101", 0, 18.0, 100),
    ]


def browse(version: str) -> list[Span]:
    text = "SELECT * FROM memories WHERE persona_id = ? ORDER BY importance LIMIT ?"
    return [
        Span("task browse_memories", -1, 160.0, attributes={"hub.task.name": "browse_memories"}),
        query("memories", text, 0, 140.0 if version == "1" else 130.0, 20),
    ]


def start(version: str) -> list[Span]:
    """A start with 60 imports: one package that nothing uses takes a third of it."""
    attributes = {"hub.startup.type": "cold", "hub.startup.end": "interactive", "hub.startup.origin": "proc_stat"}
    return [
        Span("hub.startup", -1, 1500.0, attributes=attributes),
        Span("hub.startup.phase imports", 0, 900.0, attributes={"hub.startup.phase": "imports"}),
        Span("import heavy", 1, 500.0, attributes=module("heavy", used=False)),
        *(Span(f"import heavy.m{i}", 2, 8.0, attributes=module(f"heavy.m{i}", used=False)) for i in range(40)),
        *(Span(f"import light{i}", 1, 12.0, attributes=module(f"light{i}", used=True)) for i in range(20)),
    ]


def module(name: str, used: bool) -> dict[str, str]:
    return {"code.namespace": name, "hub.import.used_before_interactive": "true" if used else "false"}


# (shape, service, of a hundred traces so many). A start comes once a run.
TRAFFIC = ((answer, "hub", 30), (browse, "hub", 10), (page, "catalogue", 60))


def prototype(spans: list[Span], service: str, version: str) -> pa.Table:
    """The shape as rows of the lake; what differs from trace to trace is filled in later."""
    schema = lake_schema.SCHEMAS[lake_schema.TRACES]
    resource = {
        "service.name": service,
        "service.version": version,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.1",
    }
    rows = []
    for span in spans:
        numbers = {key: "int" for key in span.attributes if key in ("db.response.returned_rows", "hub.vector.top_k")}
        row: dict[str, Any] = {
            "SpanName": span.name,
            "SpanKind": span.kind,
            "ServiceName": service,
            "ResourceAttributes": list(resource.items()),
            "ResourceAttributeTypes": [],
            "ScopeName": "hubscope",
            "SpanAttributes": list(span.attributes.items()),
            "SpanAttributeTypes": list(numbers.items()),
            "Duration": int(span.ms * 1e6),
            "StatusCode": "Unset",
            "StatusMessage": "",
            "TraceState": "",
            "Events": [],
            "Links": [],
        }
        everything = {**resource, **span.attributes}
        rows.append(row | {column: everything.get(name) for name, column in HOT_COLUMNS.items()})
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}, schema=schema
    )


def hex_ids(rng: np.random.Generator, count: int, size_bytes: int) -> pa.Array:
    """`count` random ids as hex text, without a Python object for each."""
    width = 2 * size_bytes
    offsets = pa.py_buffer(np.arange(0, (count + 1) * width, width, dtype=np.int32).tobytes())
    text = pa.py_buffer(rng.bytes(count * size_bytes).hex().encode())
    return pa.StringArray.from_buffers(count, offsets, text)


def traces(
    spans: list[Span], rows: pa.Table, instance: str, begin_ns: int, count: int, rng: np.random.Generator
) -> pa.Table:
    """`count` traces of one shape in one run, evenly over the run's time."""
    width = len(spans)
    n = count * width
    if not n:
        return rows.slice(0, 0)
    place = np.tile(np.arange(width), count)
    # Children follow one another from their parent's start.
    offset_ms, cursor_ms = np.zeros(width), np.zeros(width)
    for index, span in enumerate(spans):
        if span.parent >= 0:
            offset_ms[index] = offset_ms[span.parent] + cursor_ms[span.parent]
            cursor_ms[span.parent] += span.ms
    pace = np.repeat(rng.lognormal(0, 0.1, count), width)
    typical = np.array([span.ms for span in spans])
    duration = (typical[place] * pace * rng.lognormal(0, 0.15, n) * 1e6).astype(np.int64)
    begin = begin_ns + np.repeat(np.linspace(0, RUN_NS // 2, count).astype(np.int64), width)
    start_ns = begin + (offset_ms[place] * pace * 1e6).astype(np.int64)
    span_ids = hex_ids(rng, n, 8)
    parents = np.array([span.parent for span in spans])[place]
    parent_place = np.where(parents < 0, -1, np.arange(n) - place + parents)
    changed = {
        "TraceId": hex_ids(rng, count, 16).take(pa.array(np.repeat(np.arange(count), width))),
        "SpanId": span_ids,
        "ParentSpanId": pc.fill_null(span_ids.take(pa.array(parent_place, mask=parents < 0)), ""),
        "TimestampUnixNano": pa.array(start_ns),
        "Timestamp": pa.array(start_ns // 1000, pa.timestamp("us", tz="UTC")),
        "Date": pa.array((start_ns // 86_400_000_000_000).astype(np.int32), pa.date32()),
        "Duration": pa.array(np.maximum(duration, 1000)),
        "ServiceInstanceId": pa.repeat(instance, n),
    }
    table = rows.take(pa.array(place))
    for name, values in changed.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    return table


def make_lake(path: Path, spans: int, seed: int = 1) -> int:
    """Writes about `spans` spans and returns how many."""
    rng = np.random.default_rng(seed)
    schema = lake_schema.SCHEMAS[lake_schema.TRACES]
    delta = DeltaTable.create(str(path / lake_schema.TRACES), schema, partition_by=[lake_schema.PARTITION])
    writer = WriterProperties(compression="ZSTD", compression_level=1)
    written = 0
    for run in range(RUNS):
        version = "1" if run < RUNS // 2 else "2"
        shapes = [(shape(version), service, share) for shape, service, share in TRAFFIC]
        rows = [prototype(shape, service, version) for shape, service, _ in shapes]
        starts = [(start(version), service) for service in ("hub", "catalogue")]
        each = sum(len(shape) * share for shape, _, share in shapes) / 100
        total = int(spans / RUNS / each)
        files = max(round(spans / RUNS / ROWS_A_FILE), 1)
        begin_ns = START_NS + run * RUN_NS
        for file in range(files):
            parts = [
                traces(shape, proto, f"{service}-{run:04d}", begin_ns + file * (RUN_NS // 2 // files),
                       total * share // 100 // files, rng)
                for (shape, service, share), proto in zip(shapes, rows, strict=True)
            ]  # fmt: skip
            if file == 0:
                parts += [
                    traces(shape, prototype(shape, service, version), f"{service}-{run:04d}", begin_ns, 1, rng)
                    for shape, service in starts
                ]
            table = pa.concat_tables(parts).sort_by("TimestampUnixNano")
            write_deltalake(delta, table, mode="append", writer_properties=writer)
            written += table.num_rows
    return written


MEASURE = """
import json, resource, sys, time
begin = time.perf_counter()
from hubscope.analytics import report
imported = time.perf_counter()
made = report(sys.argv[1])
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found = sorted(f"{b.detector} {b.operation}" for b in made.bottlenecks)
print(json.dumps({"import_s": imported - begin, "report_s": done - imported, "peak_mib": peak, "found": found,
                  "comparisons": len(made.comparisons)}))
"""

BARE = """
import sys, time
from hubscope.analytics.connect import connect
connection = connect(sys.argv[1])
begin = time.perf_counter()
query = "SELECT ServiceName, SpanName, quantile_cont(Duration, .95) FROM otel_traces GROUP BY ServiceName, SpanName"
connection.execute(query).fetchall()
print(time.perf_counter() - begin)
"""


def in_a_process(code: str, path: Path) -> Any:
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spans", type=int, action="append", help="may be given more than once")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    print("| spans | lake, MiB | written in, s | first report, s | second, s | of it imports, s | peak memory, MiB | "
          "spans/s | one bare p95 query, s |")  # fmt: skip
    print("| ---: " * 9 + "|", flush=True)
    for spans in given.spans or (1_000_000, 10_000_000):
        folder = Path(tempfile.mkdtemp(prefix="hubscope-bench-"))
        try:
            begin = time.perf_counter()
            count = make_lake(folder, spans, given.seed)
            wrote_s = time.perf_counter() - begin
            size = sum(file.stat().st_size for file in folder.rglob("*.parquet")) / 2**20
            first, second = in_a_process(MEASURE, folder), in_a_process(MEASURE, folder)
            first_s, second_s = (one["import_s"] + one["report_s"] for one in (first, second))
            peak, bare_s = max(first["peak_mib"], second["peak_mib"]), in_a_process(BARE, folder)
            print(
                f"| {count:,} | {size:,.0f} | {wrote_s:.1f} | {first_s:.1f} | {second_s:.1f} | "
                f"{second['import_s']:.1f} | {peak:,.0f} | {count / second_s:,.0f} | {bare_s:.2f} |",
                flush=True,
            )
            # A report that is fast because it finds nothing would be no benchmark.
            print(f"found: {'; '.join(first['found'])}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(
        "\nNo peer makes such a report (Jaeger and otel-desktop-viewer answer for one trace or one search); the bare "
        "query, p95 by service and span name over the same files in DuckDB, is there for scale."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

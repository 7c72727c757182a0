"""What the collector takes: acknowledged, queryable, at what CPU, memory and disk, beside its peers in one run.

    python -m bench.ingest [--seconds 20] [--sustained 60] [--rate 150000] [--only ROW …] [--peer auto|none]

Each row starts a server anew and sends from a process of its own, on the same cores. "Queryable" is when the lake has
every row (for the peer: when the trace sent last is answered by its query API). The lag of a request is from its answer
until its rows can be queried. CPU is of all the server's processes from the first request until everything is
queryable. Bytes a span are of the spans' table, measured after its small files were merged where merges were due.

The peer is Jaeger 2 with badger, built by tests/integration/jaeger (`make integration` leaves it there), or named by
JAEGER_BIN. Without it the table says so. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from bench.ingest.send import ITEMS, Load
from bench.ingest.servers import JAEGER_DEFAULT, Server, Watch, cores, hubscope, jaeger, size_of

DEADLINE_S = 600.0
LOOK_EVERY_S = 0.25  # at what can be queried: 5 ms each time, of the two cores that are measured
ROWS = ("sustained", "flat out", "burst", "json", "metrics", "peer", "start")


class Result(NamedTuple):
    """One row of the table."""

    name: str
    load: Load
    queryable_s: float
    lag_s: list[float]
    cpu_s: dict[str, float]
    peak_rss_bytes: int
    peak_of: dict[str, int]
    last_rss_bytes: int
    disk_bytes: int


def measure(name: str, server: Server, kind: str, seconds: float, rate: float = 0.0, in_flight: int = 8) -> Result:
    """Load a running server and wait until everything can be queried."""
    watch = Watch(server.process.pid)
    watch.begin()
    address = server.http if kind == "json" else server.grpc
    command = [sys.executable, "-m", "bench.ingest.send", kind, address, "--seconds", str(seconds)]
    command += ["--rate", str(rate), "--in-flight", str(in_flight)]
    seen: list[tuple[float, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        said = b""
        os.set_blocking(sender.stdout.fileno(), False)
        while sender.poll() is None or not said:
            said += sender.stdout.read() or b""
            if server.rows is not None:
                seen.append((time.time(), server.rows(kind)))
            time.sleep(LOOK_EVERY_S)
        said += sender.stdout.read() or b""
    if sender.returncode:
        raise SystemExit(f"{name}: the load generator failed")
    load = Load(**json.loads(said))
    deadline_s = time.time() + DEADLINE_S
    while not _is_queryable(server, kind, load, seen):
        if time.time() > deadline_s:
            raise SystemExit(f"{name}: not everything was queryable within {DEADLINE_S:g} s")
        time.sleep(0.05)
    queryable_s = time.time() - load.started_unix_s
    cpu_s = watch.finish()
    lag_s = _lags(load, seen, ITEMS[kind])
    disk = server.disk / "otel_traces" if server.rows is not None else server.disk
    return Result(
        name,
        load,
        queryable_s,
        lag_s,
        cpu_s,
        watch.peak_rss_bytes,
        watch.peak_of,
        watch.rss_bytes[-1][1],
        size_of(disk),
    )


def _is_queryable(server: Server, kind: str, load: Load, seen: list[tuple[float, int]]) -> bool:
    if server.rows is None:
        return server.has_trace is not None and server.has_trace(load.last_trace_id)
    rows = server.rows(kind)
    seen.append((time.time(), rows))
    return rows >= load.items


def _lags(load: Load, seen: list[tuple[float, int]], items: int) -> list[float]:
    """Of each request the time from its answer until its rows could be queried: the log keeps the answers' order."""
    lags, at = [], 0
    for number, answered_s in enumerate(sorted(load.answers_unix_s), start=1):
        while at < len(seen) and seen[at][1] < number * items:
            at += 1
        if at == len(seen):
            break
        lags.append(max(0.0, seen[at][0] - answered_s))
    return lags


def table(results: list[Result]) -> str:
    """The Markdown table."""
    lines = [
        "| | sent for, s | acknowledged/s | queryable/s | lag p50, s | lag p99, s | CPU µs each | memory peak, MiB "
        "| at the end | B each on disk | refusals |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        n, sent_s = r.load.items, r.load.ended_unix_s - r.load.started_unix_s
        lag = [f"{statistics.quantiles(r.lag_s, n=100)[p]:.2f}" for p in (49, 98)] if len(r.lag_s) > 1 else ["", ""]
        disk = f"{r.disk_bytes / n:.1f}" if "points" not in r.name else ""
        lines.append(
            f"| {r.name} | {sent_s:.0f} | {n / sent_s:,.0f} | {n / r.queryable_s:,.0f} | {lag[0]} | {lag[1]} "
            f"| {sum(r.cpu_s.values()) / n * 1e6:.1f} | {r.peak_rss_bytes / 2**20:,.0f} "
            f"| {r.last_rss_bytes / 2**20:,.0f} | {disk} | {r.load.refusals} |"
        )
    lines.append("")
    for r in results:
        shares = ", ".join(
            f"{name} {cpu_s / r.load.items * 1e6:.1f} µs each and {r.peak_of[name] / 2**20:,.0f} MiB"
            for name, cpu_s in r.cpu_s.items()
        )
        lines.append(f"- {r.name}: {shares}")
    return "\n".join(lines)


def start_times(runs: int) -> str:
    """From the start of `hubscope collect` until a health check says that it takes requests, on an empty lake."""
    times: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="hubscope-bench-") as folder:
            begun_s = time.perf_counter()
            with hubscope(Path(folder)) as server:
                times.append(time.perf_counter() - begun_s)
                del server
    return (
        f"Start to accepting, {runs} runs: median {statistics.median(times) * 1000:.0f} ms "
        f"({min(times) * 1000:.0f} to {max(times) * 1000:.0f})"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that were asked for and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the rows that are not named below send")
    parser.add_argument("--sustained", type=float, default=60.0, help="how long the paced row sends")
    parser.add_argument("--rate", type=float, default=150_000.0, help="spans a second of the paced row")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--peer", choices=("auto", "none"), default="auto")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped too
    asked = options.only or ROWS
    results: list[Result] = []
    notes: list[str] = []

    def row(name: str, kind: str, seconds: float, rate: float, start: Callable[[Path], Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="hubscope-bench-") as folder:
            running: AbstractContextManager[Server] = start(Path(folder))
            with running as server:
                print(f"{name} …", file=sys.stderr)
                results.append(measure(name, server, kind, seconds, rate, options.in_flight))

    if "sustained" in asked:
        row(f"spans, paced at {options.rate:,.0f}/s", "spans", options.sustained, options.rate, hubscope)
    if "burst" in asked:
        row("spans, burst", "spans", 5.0, 0.0, hubscope)
    if "flat out" in asked:
        row("spans, as fast as answered", "spans", options.seconds, 0.0, hubscope)
    program = Path(os.environ.get("JAEGER_BIN", JAEGER_DEFAULT))
    if "peer" in asked and options.peer == "auto":
        if program.is_file():
            start = lambda folder: jaeger(program, folder)  # noqa: E731 - one line, used once
            row("Jaeger 2 with badger: spans, as fast as answered", "spans", options.seconds, 0.0, start)
        else:
            notes.append(f"No peer: there is no {program}. `make integration` builds it; JAEGER_BIN names another.")
    if "json" in asked:
        row("spans, HTTP/JSON", "json", options.seconds, 0.0, hubscope)
    if "metrics" in asked:
        row("metric points", "metrics", options.seconds, 0.0, hubscope)
    print("### Ingest\n")
    print(f"{cores()} cores shared with the load generator, Python {platform.python_version()}\n")
    if results:
        first = results[0].load
        print(f"Requests of {first.size_bytes / first.items:.0f} B an item in the first row\n")
        print(table(results))
    if "start" in asked:
        print(f"\n{start_times(7)}")
    for note in notes:
        print(f"\n{note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

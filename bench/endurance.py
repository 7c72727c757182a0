"""A long load with every reader at work: does anything fail, wait, or grow?

    python -m bench.endurance [--minutes 10] [--rate 150000]

Spans are sent at a rate for the whole time, from a process of its own on the same cores, while `hubscope sql`,
`hubscope trace` and `hubscope report` are run over the same lake one after the other, again and again, and the
collector merges its files. Prints Markdown: what each reader did, and the collector's memory, lag and files by minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.ingest.send import Load
from bench.ingest.servers import Watch, ask, cores, hubscope

READ_TIMEOUT_S = 300.0
WINDOW = "2m"  # what a person looks at while it happens


class Read(NamedTuple):
    """One run of a reader."""

    reader: str
    seconds: float
    failure: str


class Readers(threading.Thread):
    """Runs the readers in turn until it is told to end."""

    def __init__(self, lake: Path) -> None:
        super().__init__(daemon=True)
        self._lake = lake
        self.ending = threading.Event()
        self.reads: list[Read] = []

    def run(self) -> None:
        while not self.ending.is_set():
            found = self._read("sql, newest trace", "sql", "--format", "json", _NEWEST)
            if found:
                self._read("trace", "trace", json.loads(found)[0]["TraceId"], "--format", "json")
            self._read("sql, p95 by operation", "sql", "--format", "json", _PERCENTILES)
            self._read("report", "report", "--since", WINDOW, "--format", "json")

    def _read(self, name: str, command: str, *arguments: str) -> str:
        """What it printed; '' where it failed."""
        words = [sys.executable, "-m", "hubscope.console", command, *arguments]
        environ = {**os.environ, "HUBSCOPE_LAKE": str(self._lake)}
        begun_s = time.perf_counter()
        try:
            done = subprocess.run(
                words, env=environ, capture_output=True, text=True, timeout=READ_TIMEOUT_S, check=False
            )
            failure = "" if done.returncode == 0 else done.stderr.strip()[-300:] or f"ended with {done.returncode}"
            said = done.stdout
        except subprocess.TimeoutExpired:
            failure, said = f"took longer than {READ_TIMEOUT_S:g} s", ""
        self.reads.append(Read(name, time.perf_counter() - begun_s, failure))
        return "" if failure else said


_NEWEST = "select TraceId from otel_traces order by Timestamp desc limit 1"
_PERCENTILES = "select SpanName, count(*) as n, q95(Duration) as p95 from otel_traces group by 1 order by 1"


def main(arguments: list[str] | None = None) -> int:
    """Load, read, and say what happened; 1 where a reader failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.endurance", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=150_000.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hubscope-bench-") as folder, hubscope(Path(folder)) as server:
        assert server.rows is not None
        watch = Watch(server.process.pid)
        watch.begin()
        command = [sys.executable, "-m", "bench.ingest.send", "spans", server.grpc]
        command += ["--seconds", str(60 * options.minutes), "--rate", str(options.rate)]
        readers = Readers(server.disk)
        said: list[bytes] = []
        minutes: list[dict[str, Any]] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
            taker = threading.Thread(target=lambda: said.append(sender.communicate()[0]), daemon=True)
            taker.start()
            while not server.rows("spans"):
                time.sleep(0.1)
            readers.start()
            begun_s = time.time()
            while taker.is_alive():
                taker.join(min(60.0, 60 * options.minutes))
                minutes.append(_look(server, watch, begun_s))
                print(minutes[-1], file=sys.stderr)
        readers.ending.set()
        load = Load(**json.loads(said[0]))
        deadline_s = time.time() + 300
        while server.rows("spans") < load.items and time.time() < deadline_s:
            time.sleep(0.1)
        behind_s = time.time() - load.ended_unix_s
        stored = server.rows("spans")
        readers.join(READ_TIMEOUT_S)
        watch.finish()
    _print(options, load, stored, behind_s, readers.reads, minutes)
    return 1 if stored != load.items or any(read.failure for read in readers.reads) else 0


def _look(server: Any, watch: Watch, begun_s: float) -> dict[str, Any]:
    health = ask(f"http://{json.loads((server.disk / '.state/collector.json').read_text())['telemetry']}/healthz") or {}
    return {
        "minute": round((time.time() - begun_s) / 60, 1),
        "MiB": max(rss for at, rss in watch.rss_bytes if at > time.time() - 60) >> 20,
        "spans": server.rows("spans"),
        "log MiB": int(health.get("log_bytes", 0)) >> 20,
        "oldest in log, s": round(health.get("queue_age_s", 0.0), 1),
        "files": sum(1 for _ in (server.disk / "otel_traces").rglob("*.parquet")),
    }


def _print(
    options: Any, load: Load, stored: int, behind_s: float, reads: list[Read], minutes: list[dict[str, Any]]
) -> None:
    sent_s = load.ended_unix_s - load.started_unix_s
    print(f"### {options.minutes:g} minutes at {options.rate:,.0f} spans/s, with readers\n")
    print(f"{cores()} cores shared with the load generator and the readers.\n")
    print(
        f"{load.items:,} spans acknowledged in {sent_s:,.0f} s ({load.items / sent_s:,.0f}/s), {load.refusals} refused "
        f"and sent again; {stored:,} in the lake, the last {behind_s:.1f} s after its acknowledgement.\n"
    )
    print("| reader | runs | median, s | longest, s | failures |\n| --- | ---: | ---: | ---: | --- |")
    for name in dict.fromkeys(read.reader for read in reads):
        of_name = [read for read in reads if read.reader == name]
        times = [read.seconds for read in of_name]
        failures = "; ".join(read.failure for read in of_name if read.failure) or "0"
        print(f"| {name} | {len(times)} | {statistics.median(times):.2f} | {max(times):.2f} | {failures} |")
    print(f"\n| {' | '.join(minutes[0])} |\n|{' ---: |' * len(minutes[0])}")
    for minute in minutes:
        print(f"| {' | '.join(f'{value:,}' for value in minute.values())} |")


if __name__ == "__main__":
    sys.exit(main())

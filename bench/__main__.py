"""Every benchmark, one after the other; each prints Markdown tables with its peer in the same run.

    python -m bench [NAME …] [--output FILE]

Without a name all of them run. Each is a program of its own (`python -m bench.NAME --help`). `--output` also writes
what was printed to a file, with the machine and the date on top.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

BENCHMARKS: tuple[tuple[str, str], ...] = (
    ("overhead", "what measuring costs an application, beside the stock SDK"),
    ("encoding", "what writing telemetry as OTLP costs, beside the stock encoder"),
    ("export", "what sending spans costs an application, and leaving without a collector, beside the stock exporters"),
    ("ingest", "how fast spans become durable and queryable, beside a peer"),
    ("report", "how long a report takes on 1 and 10 million spans"),
    ("small_appends", "what a day of small appends leaves, and how fast the lake opens then"),
    ("trace_lookup", "how long a trace by its id takes among 10 million spans"),
)


def main() -> int:
    listing = "\n".join(f"  {name:14} {what}" for name, what in BENCHMARKS)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; all when none is named")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    chosen = parser.parse_args()
    known = [name for name, _ in BENCHMARKS]
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    heading = (
        f"# Benchmarks\n\n{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, "
        f"{platform.system()} {platform.machine()}\n"
    )
    print(heading, flush=True)
    parts, failed = [heading], []
    for name in chosen.names or known:
        process = subprocess.Popen([sys.executable, "-m", f"bench.{name}"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            parts.append(line)
        if process.wait():
            failed.append(name)
        print(flush=True)
        parts.append("\n")
    if chosen.output:
        chosen.output.write_text("".join(parts), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

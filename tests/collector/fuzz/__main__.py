"""Damaged requests against a real collector: python -m tests.collector.fuzz --inputs 1000000 --seed 1"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.collector.fuzz.run import fuzz


def main() -> int:
    """Print what was sent and what came of it; 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.collector.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--senders", type=int, default=2, help="processes")
    parser.add_argument("--in-flight", type=int, default=24, help="requests of each at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz(Path(folder), arguments.inputs, arguments.seed, arguments.senders, arguments.in_flight)
    print(f"\n{result.sent:,} requests in {result.seconds:.0f} s, the slowest answered after {result.slowest_s:.2f} s")
    print(f"all of it was in the lake {result.drained_s:.1f} s later")
    for answer, count in sorted(result.counts.items(), key=lambda pair: -pair[1]):
        print(f"  {answer:32} {count:10,}")
    for items, accepted in result.accepted.items():
        print(f"{items}: {accepted:,} accepted, {result.arrived.get(items, 0):,} in the lake or in dead letters")
    print("\n".join([f"dead letters: {len(result.dead_letters)}", *result.dead_letters[:10]]))
    arrived = f"{result.good_arrived:,} arrived, {result.good_twice} twice"
    print(f"good ones: {result.good_acknowledged:,} acknowledged, {arrived}")
    warm, last = result.growth_mib()
    print(f"resident memory of all processes: {warm:.0f} MiB after warm-up, {last:.0f} MiB at the end")
    problems = result.problems()
    print("\n".join(problems) or "all of it holds")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

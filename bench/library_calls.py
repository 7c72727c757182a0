"""What a library's instrumentation adds to one call that makes no span: CPU time, the same call measured and not.

python -m bench.library_calls
"""

from __future__ import annotations

import json
import subprocess
import sys

_LOOP = """
import json, sys, time
what, measured = sys.argv[1], sys.argv[2] == "hubscope"
if measured:
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    from importlib.metadata import entry_points
    [point] = entry_points(group="opentelemetry_instrumentor", name="hubscope_" + what.partition(".")[0])
    point.load()().instrument()
if what == "cachetools":
    import cachetools
    cache = cachetools.LRUCache(4096)
    for n in range(1000): cache[n] = n
    def step(n): return cache[n % 1000]
elif what == "cachetools.get":
    import cachetools
    cache = cachetools.LRUCache(4096)
    def step(n): return cache.get(n % 1000)
elif what == "lru_cache":
    import functools
    @functools.lru_cache(4096)
    def answer(n): return n
    def step(n): return answer(n % 1000)
elif what == "theine":
    import theine
    cache = theine.Cache(4096)
    for n in range(1000): cache.set(n, n)
    def step(n): return cache.get(n % 1000)
else:
    import diskcache, tempfile
    cache = diskcache.Cache(tempfile.mkdtemp())
    cache[1] = 1
    def step(n): return cache.get(1)
count = int(sys.argv[3])
for n in range(min(count, 150_000)): step(n)  # beyond what the access log takes
began = time.process_time()
for n in range(count): step(n)
print(json.dumps((time.process_time() - began) / count * 1e6))
"""
CASES: tuple[tuple[str, int], ...] = (
    ("cachetools", 300_000),
    ("cachetools.get", 300_000),
    ("lru_cache", 1_000_000),
    ("theine", 300_000),
    ("diskcache", 20_000),
)


def cost_us(what: str, setup: str, count: int, runs: int = 3) -> float:
    """CPU µs a call, the best of `runs`."""
    command = [sys.executable, "-c", _LOOP, what, setup, str(count)]
    return min(
        float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        for _ in range(runs)
    )


def main() -> None:
    print("| call | unmeasured, µs | hubscope adds, µs |\n| --- | --- | --- |")
    for what, count in CASES:
        base, measured = cost_us(what, "none", count), cost_us(what, "hubscope", count)
        print(f"| {what} | {base:.2f} | {measured - base:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""A real collector under damaged requests, and whether it holds what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow.compute as pc
from deltalake import DeltaTable
from prometheus_client.parser import text_string_to_metric_families

from hubscope.collector.log.wal import sealed_segments
from hubscope.collector.otlp.requests import KINDS, count_items
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, LOGS, SUM, SUMMARY, TRACES
from tests.collector.conftest import Collector
from tests.collector.fuzz.sender import good_id

MIB: Final = 1 << 20
DRAIN_DEADLINE_S: Final = 1800.0
ITEMS_OF: Final = {"spans": ("otel_traces",), "log_records": ("otel_logs",), "metric_points": ()}


@dataclass
class Result:
    """What was sent and what came of it."""

    sent: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    late: list[str] = field(default_factory=list)
    memory_mib: list[tuple[float, dict[str, float]]] = field(default_factory=list)  # s, process -> resident MiB
    accepted: dict[str, int] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)  # rows of the lake and items in dead letters
    dead_letters: list[str] = field(default_factory=list)  # their reasons
    good_acknowledged: int = 0
    good_arrived: int = 0
    good_twice: int = 0
    restarted: list[str] = field(default_factory=list)
    seconds: float = 0.0
    drained_s: float = 0.0  # from the last answer until all of it was in the lake

    def problems(self) -> list[str]:
        """What does not hold."""
        found = [f"not answered within 5 s: {late}" for late in self.late]
        found += [f"the {name} is another process now" for name in self.restarted]
        found += [
            f"{items}: {number} accepted, {self.arrived.get(items, 0)} arrived"
            for items, number in self.accepted.items()
            if self.arrived.get(items, 0) < number
        ]
        if self.good_arrived != self.good_acknowledged:
            found.append(f"{self.good_acknowledged} good ones acknowledged, {self.good_arrived} arrived")
        good = ("good http 200", "good grpc OK", "good http 503", "good grpc UNAVAILABLE")
        found += [
            f"{count} x {what}" for what, count in self.counts.items() if what.startswith("good") and what not in good
        ]
        if self.good_twice:
            found.append(f"{self.good_twice} good ones arrived twice")
        return found

    def growth_mib(self) -> tuple[float, float]:
        """All processes together after warm-up (the first fifth) and at the end: medians of a fifth of the looks."""
        totals = [sum(by_process.values()) for _, by_process in self.memory_mib]
        fifth = max(1, len(totals) // 5)
        middle = lambda part: sorted(part)[len(part) // 2]  # noqa: E731
        return middle(totals[fifth : 2 * fifth] or totals), middle(totals[-fifth:])


def fuzz(
    folder: Path, inputs: int, seed: int, senders: int = 2, in_flight: int = 24, say: Callable[[str], None] = print
) -> Result:
    """Send `inputs` damaged requests from so many processes, then look what became of them."""
    collector = Collector(folder / "lake")
    collector.start()
    result = Result()
    try:
        pids = {name: collector.pid_of(name) for name in ("front", "worker")}
        started_s = time.monotonic()
        _send(collector, result, inputs, seed, senders, in_flight, say, started_s)
        result.seconds = time.monotonic() - started_s
        collector.wait_for(lambda: not waiting_segments(collector), "the log is worked off", DRAIN_DEADLINE_S)
        result.drained_s = time.monotonic() - started_s - result.seconds
        result.restarted = [name for name, pid in pids.items() if collector.pid_of(name) != pid]
        result.accepted = _accepted(collector)
        assert collector.stop() == 0, collector.output
        _count_arrivals(collector, result)
    finally:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all()
    return result


def _send(
    collector: Collector,
    result: Result,
    inputs: int,
    seed: int,
    senders: int,
    in_flight: int,
    say: Callable[[str], None],
    started_s: float,
) -> None:
    ports = [collector.addresses[name].rsplit(":", 1)[1] for name in ("grpc", "http")]
    latest: dict[int, dict[str, Any]] = {}
    processes = []
    for number in range(senders):
        share = inputs // senders + (number < inputs % senders)
        arguments = [*ports, str(share), str(seed + 1000 * number), str(in_flight)]
        command = [sys.executable, "-m", "tests.collector.fuzz.sender", *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def read(number: int) -> None:
        for line in processes[number].stdout or ():
            latest[number] = json.loads(line)

    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(senders)]
    for thread in threads:
        thread.start()
    next_s = 0.0
    try:
        while any(process.poll() is None for process in processes):
            now_s = time.monotonic() - started_s
            result.memory_mib.append((now_s, memory_mib(collector)))
            if now_s >= next_s:
                next_s = now_s + 10
                sent = sum(report["sent"] for report in latest.values())
                shown = ", ".join(f"{name} {mib:.0f}" for name, mib in result.memory_mib[-1][1].items())
                waiting = waiting_segments(collector)
                say(f"{now_s:6.0f} s  {sent:9,} sent  {waiting:4} segments waiting  resident MiB: {shown}")
            time.sleep(0.5)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    for thread in threads:
        thread.join(10)
    assert [process.wait() for process in processes] == [0] * senders, "a sender failed"
    for report in latest.values():
        assert report["done"]
        result.sent += report["sent"]
        result.counts.update(report["counts"])
        result.slowest_s = max(result.slowest_s, report["slowest_s"])
        result.late += report["late"]
    result.good_acknowledged = sum(len(report["acknowledged"]) for report in latest.values())
    _GOOD.clear()
    _GOOD.update(good_id(report["seed"], index).hex() for report in latest.values() for index in report["acknowledged"])


_GOOD: set[str] = set()


def waiting_segments(collector: Collector) -> int:
    """Sealed segments of the log that are not in the lake yet."""
    return len(sealed_segments(collector.state / "wal"))


def memory_mib(collector: Collector) -> dict[str, float]:
    """Resident memory of the supervisor and its children."""
    assert collector.process is not None
    found = {"supervisor": psutil.Process(collector.process.pid).memory_info().rss / MIB}
    for name in ("front", "worker"):
        try:
            found[name] = psutil.Process(collector.pid_of(name)).memory_info().rss / MIB
        except psutil.Error:
            found[name] = 0.0
    return found


def _accepted(collector: Collector) -> dict[str, int]:
    with urllib.request.urlopen(f"http://{collector.addresses['telemetry']}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found = dict.fromkeys(ITEMS_OF, 0)
    for family in text_string_to_metric_families(text):
        for items in ITEMS_OF:
            if family.name == f"otelcol_receiver_accepted_{items}":
                found[items] = int(sum(sample.value for sample in family.samples))
    return found


def _count_arrivals(collector: Collector, result: Result) -> None:
    arrived: Counter[str] = Counter()
    for table in (TRACES, LOGS, GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY):
        path = collector.lake / table
        if not path.exists():
            continue
        columns = ["TraceId"] if table == TRACES else ["ScopeName"]
        rows = DeltaTable(str(path)).to_pyarrow_table(columns=columns)
        if table == TRACES:
            arrived["spans"] += rows.num_rows
            good = pc.filter(rows["TraceId"], pc.starts_with(rows["TraceId"], b"good".hex()))
            times = Counter(good.to_pylist())
            result.good_arrived = sum(1 for trace_id in _GOOD if times[trace_id])
            result.good_twice = sum(1 for trace_id in _GOOD if times[trace_id] > 1)
        elif table == LOGS:
            derived = pc.sum(pc.starts_with(rows["ScopeName"], "hubscope")).as_py() or 0
            arrived["log_records"] += rows.num_rows - derived
        else:
            derived = pc.sum(pc.starts_with(rows["ScopeName"], "hubscope")).as_py() or 0
            arrived["metric_points"] += rows.num_rows - derived
    for path in (collector.state / "dead-letter").glob("*"):
        if path.suffix == ".json":
            result.dead_letters.append(json.loads(path.read_text())["reason"])
        for kind in KINDS:
            if path.suffix != ".json" and kind.signal.name.lower() in path.name:
                arrived[kind.items] += count_items(kind, path.read_bytes())
    result.arrived = dict(arrived)

"""Kills: whatever dies, an acknowledged span is in the lake exactly once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from deltalake import DeltaTable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS_PER_REQUEST = 40
# The codes that the OTLP specification lets a client repeat a request on; a dying server gives one of the first two.
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED)


class Sender(threading.Thread):
    """A client that sends requests of fresh spans one after another, and repeats each until it is acknowledged."""

    def __init__(self, address: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.random = random.Random(seed)
        self.acknowledged: list[str] = []
        self.attempts = 0
        self.ending = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
            with grpc.insecure_channel(self.address, options) as channel:
                export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
                while not self.ending.is_set():
                    payload, span_ids = self._request()
                    self._send(export, payload)
                    self.acknowledged += span_ids
        except BaseException as error:  # noqa: BLE001 - told to the test, which is in another thread
            self.failure = error

    def _request(self) -> tuple[bytes, list[str]]:
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        trace_id = self.random.randbytes(16)
        span_ids = [self.random.randbytes(8) for _ in range(SPANS_PER_REQUEST)]
        now_ns = time.time_ns()
        for span_id in span_ids:
            spans.add(
                trace_id=trace_id, span_id=span_id, name="x", start_time_unix_nano=now_ns, end_time_unix_nano=now_ns + 1
            )
        return request.SerializeToString(), [s.hex() for s in span_ids]

    def _send(self, export: Any, payload: bytes) -> None:
        while True:
            self.attempts += 1
            try:
                export(payload, timeout=10)
                return
            except grpc.RpcError as error:
                if error.code() not in RETRYABLE:
                    raise
                threading.Event().wait(0.05)


def spans_in_lake(collector: Any) -> Counter[str]:
    """How often each span id stands in the lake."""
    table = DeltaTable(str(collector.lake / "otel_traces")).to_pyarrow_table(columns=["SpanId"])
    return Counter(table.column("SpanId").to_pylist())


def run_kills(collector: Any, kills: int, seed: int) -> None:
    """Kill something `kills` times under load, stop cleanly, and compare what was acknowledged with the lake."""
    chance = random.Random(seed)
    collector.start()
    senders = [Sender(collector.addresses["grpc"], seed * 100 + i) for i in range(3)]
    for sender in senders:
        sender.start()
    for number in range(kills):
        before = sum(len(s.acknowledged) for s in senders)
        collector.wait_for(
            lambda before=before: sum(len(s.acknowledged) for s in senders) > before + 5 * SPANS_PER_REQUEST,
            f"spans are acknowledged after kill {number}",
            40,
        )
        threading.Event().wait(chance.random() * 0.6)
        victim = chance.choice(["front", "worker", "supervisor", "everything"])
        if victim == "everything":
            collector.kill_all()
        elif victim == "supervisor":
            collector.process.kill()
            collector.process.wait()
        elif pid := collector.pid_of(victim):
            os.kill(pid, signal.SIGKILL)
        if collector.process.poll() is not None:
            collector.start()
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(30)
        assert sender.failure is None, sender.failure
    assert collector.stop() == 0, collector.output
    stored = spans_in_lake(collector)
    acknowledged = [span_id for sender in senders for span_id in sender.acknowledged]
    missing = [span_id for span_id in acknowledged if span_id not in stored]
    twice = [span_id for span_id, count in stored.items() if count > 1]
    assert len(acknowledged) > kills * 5 * SPANS_PER_REQUEST
    assert (len(missing), len(twice)) == (0, 0), f"{len(missing)} lost and {len(twice)} twice of {len(acknowledged)}"


def test_three_kills_lose_nothing(new_collector: Callable[..., Any]) -> None:
    """Three kills of random processes under load: every acknowledged span is in the lake exactly once."""
    run_kills(new_collector(), kills=3, seed=1)


@pytest.mark.integration
@pytest.mark.timeout(0)
def test_many_kills_lose_nothing(new_collector: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    """The same twenty times in a row, or as often as `--kills` says."""
    run_kills(new_collector(), kills=request.config.getoption("--kills"), seed=request.config.getoption("--kill-seed"))

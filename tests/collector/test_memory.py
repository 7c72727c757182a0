"""The bound on memory: above it requests are refused retryably, below it, or when all is worked off, taken again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.configuration.settings import CollectorSettings, Limits
from hubscope.collector.live import Live
from hubscope.collector.receivers import memory as memory_module
from hubscope.collector.receivers.memory import Memory

MIB = 1024 * 1024
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def spans(prefix: str, count: int) -> tuple[bytes, list[str]]:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    names = [f"{prefix}-{i}" for i in range(count)]
    for i, name in enumerate(names):
        scope.spans.add(trace_id=prefix.encode().rjust(16, b"0")[-16:], span_id=i.to_bytes(8, "big"), name=name)
    return request.SerializeToString(), names


def test_the_bound_has_a_distance_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above it with work left: refused; a little below: still; far below, or with nothing left to do: taken."""
    rss, behind = [0], [True]
    monkeypatch.setattr(memory_module, "collector_pids", lambda: [1])
    monkeypatch.setattr(memory_module, "rss_bytes", lambda pid: rss[0])
    monkeypatch.setattr(memory_module, "own_bytes", lambda pid: rss[0])
    live = Live(CollectorSettings("/lake", "/state", limits=Limits(memory_bytes=100 * MIB)))
    memory = Memory(live, lambda: behind[0])

    def refuses(mib: int, is_behind: bool = True) -> bool:
        rss[0], behind[0] = mib * MIB, is_behind
        memory.measure()
        return memory.refusal is not None

    assert [refuses(100), refuses(101), refuses(97), refuses(94), refuses(97)] == [False, True, True, False, False]
    assert memory.refusals == 1
    assert [refuses(500), refuses(500, is_behind=False), refuses(500)] == [True, False, True]
    assert memory.refusals == 3
    assert memory.refusal is not None
    assert "limits.memory is 100 MiB" in memory.refusal.message


def test_what_is_told_is_what_the_bound_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that processes share count once in it, though each has them in its resident memory."""
    monkeypatch.setattr(memory_module, "collector_pids", lambda: [1, 2])
    monkeypatch.setattr(memory_module, "rss_bytes", lambda pid: 60 * MIB)
    monkeypatch.setattr(memory_module, "own_bytes", lambda pid: 40 * MIB)
    memory = Memory(Live(CollectorSettings("/lake", "/state", limits=Limits(memory_bytes=100 * MIB))), lambda: True)
    memory.measure()
    assert memory.refusal is None
    assert (memory.rss_bytes, memory.counted_bytes()) == (120 * MIB, 80 * MIB)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil looks")
def test_pages_that_processes_share_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes above the bound only by what they share are not refused, and by what is their own they are."""
    monkeypatch.setattr(memory_module, "collector_pids", lambda: [1, 2])
    resident, own = [60 * MIB], [40 * MIB]
    monkeypatch.setattr(memory_module, "rss_bytes", lambda pid: resident[0])
    monkeypatch.setattr(memory_module, "own_bytes", lambda pid: own[0])
    memory = Memory(Live(CollectorSettings("/lake", "/state", limits=Limits(memory_bytes=100 * MIB))), lambda: True)
    memory.measure()
    assert memory.refusal is None
    own[0] = 55 * MIB
    resident[0] = 69 * MIB
    memory.measure()
    assert memory.refusal is None  # 80 MiB own, and 18 more since: that cannot be above the bound
    resident[0] = 71 * MIB
    memory.measure()
    assert memory.refusal is not None
    assert "take 110 MiB" in memory.refusal.message


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say what is shared")
def test_what_is_shared_is_known() -> None:
    """A process has at most all of its resident memory for its own, and one that has ended has none."""
    assert 0 < memory_module.own_bytes(os.getpid()) <= memory_module.rss_bytes(os.getpid())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert memory_module.own_bytes(ended.pid) == 0


def test_the_children_of_children_count() -> None:
    """A process's children are found with theirs, whichever thread started them."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    started: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-c", code]
    thread = threading.Thread(
        target=lambda: started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    )
    thread.start()
    thread.join()
    child = started[0]
    assert child.stdout is not None
    child.stdout.readline()
    found = memory_module._children(child.pid)
    assert found == [p.pid for p in psutil.Process(child.pid).children()]
    assert all(memory_module.rss_bytes(pid) > MIB for pid in found)
    child.communicate(b"\n")
    assert memory_module.rss_bytes(found[0]) == 0


def test_it_refuses_under_load_and_loses_nothing(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """With a bound below what it takes, senders on both transports are told when to come again; all arrives once."""
    (tmp_path / "c.yaml").write_text("limits: {memory: 40 MiB}\n")
    collector = new_collector("--config", str(tmp_path / "c.yaml"))
    collector.start()
    collector.wait_for(lambda: collector.health().get("worker", {}).get("alive"), "the worker works")
    acknowledged: list[str] = []
    refused = {"grpc": 0, "http": 0}
    retry_delays_s: set[float] = set()

    def send(transport: str, number: int) -> bool:
        body, names = spans(f"{transport}{number}", 50)
        if transport == "http":
            answer = httpx.post(f"http://{collector.addresses['http']}/v1/traces", content=body, headers=PROTOBUF)
            if answer.status_code != 200:
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
                return False
        else:
            with grpc.insecure_channel(collector.addresses["grpc"]) as channel:
                future = channel.unary_unary(EXPORT).future(body, timeout=20)
                error: Any = future.exception()
                if error is not None:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE
                    assert "limits.memory is 40 MiB" in error.details()
                    info = RetryInfo()
                    assert rpc_status.from_call(future).details[0].Unpack(info)
                    retry_delays_s.add(info.retry_delay.ToMilliseconds() / 1000)
                    return False
        acknowledged.extend(names)
        return True

    deadline_s = time.monotonic() + 60
    number = -1
    while number < 20 or not sum(refused.values()):  # refused only while something waits for the lake
        number += 1
        assert time.monotonic() < deadline_s, "40 MiB is less than Python itself takes, and nobody was refused"
        for transport in refused:

            def arrives(transport: str = transport, number: int = number) -> bool:
                taken = send(transport, number)
                refused[transport] += not taken
                return taken

            collector.wait_for(arrives, "it takes again when what it had is worked off")
    assert retry_delays_s <= {memory_module.RETRY_AFTER_S}
    metrics = httpx.get(f"http://{collector.addresses['telemetry']}/metrics").text
    counted = [line for line in metrics.splitlines() if line.startswith("hubscope_memory_refusal_periods_total")]
    assert float(counted[0].split()[-1]) >= 1
    assert collector.stop() == 0
    assert sorted(collector.span_names()) == sorted(acknowledged)

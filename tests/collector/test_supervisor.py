"""The supervisor and the `collect` command: start, stop, ports, locks, leases, and a disk that fills up."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner

from hubscope.collector import leases, supervisor
from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import CollectorSettings, Limits
from hubscope.collector.lock import hold
from hubscope.collector.log import wal
from hubscope.collector.log.wal import SegmentWriter, Signal
from hubscope.collector.receivers import intake as intake_module
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.intake import Intake
from hubscope.console.main import main
from hubscope.errors import ConfigError, RetryableError


def test_a_collector_starts_restarts_its_parts_and_stops(new_collector: Callable[..., Any]) -> None:
    """Ready; a second one on the same lake is refused by pid; killed parts come back; SIGTERM ends all with 0."""
    collector = new_collector()
    collector.start()
    second = new_collector(lake=collector.lake)
    second.start(wait=False)
    assert second.process.wait(30) == 2
    assert f"pid {collector.process.pid}" in second.output
    for name in ("front", "worker"):
        pid = collector.wait_for(lambda name=name: collector.pid_of(name), f"the {name} runs")
        os.kill(pid, signal.SIGKILL)
        collector.wait_for(lambda name=name, pid=pid: collector.pid_of(name) not in (0, pid), f"another {name} runs")
    collector.wait_for(lambda: collector.health().get("ready"), "ready again")
    children = [p.pid for p in psutil.Process(collector.process.pid).children()]
    assert collector.stop() == 0, collector.output
    assert not any(psutil.pid_exists(pid) for pid in children)
    assert not (collector.state / "collector.json").exists()
    assert not any(p.stat().st_size for p in wal.open_segments(collector.state / "wal"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux; elsewhere they notice by a pipe")
def test_a_killed_supervisor_leaves_no_front(new_collector: Callable[..., Any]) -> None:
    """kill -9 of the supervisor frees the ports, and the next start on the same lake works."""
    collector = new_collector()
    collector.start()
    front = collector.pid_of("front")
    collector.process.kill()
    collector.process.wait()
    collector.wait_for(lambda: not psutil.pid_exists(front), "the front is gone")
    collector.start()
    assert collector.stop() == 0


def test_it_leaves_with_the_last_lease(new_collector: Callable[..., Any]) -> None:
    """With --stop-without-leases it stays while a lease's process lives and ends by itself after."""
    collector = new_collector("--stop-without-leases")
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (collector.state / "leases").mkdir(parents=True)
    (collector.state / "leases" / str(holder.pid)).touch()
    collector.start()
    assert leases.living(collector.state) == [holder.pid]
    assert holder.stdin is not None
    holder.stdin.close()
    holder.wait()
    assert leases.living(collector.state) == []
    assert collector.process.wait(30) == 0
    assert "no program needs this collector" in collector.output


def test_every_taken_port_is_named_with_its_flag(tmp_path: Path) -> None:
    """Two taken ports are two lines, each with its owner and the flag that changes it."""
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        settings = CollectorSettings(
            lake=str(tmp_path),
            state_dir=str(tmp_path),
            grpc=Address(*one.getsockname()),
            http=Address("127.0.0.1", 0),
            telemetry=Address(*two.getsockname()),
        )
        with pytest.raises(ConfigError) as caught:
            supervisor.check_ports(settings)
    assert [p.partition(":")[0] for p in caught.value.problems] == ["--grpc", "--telemetry"]
    assert all(f"pid {os.getpid()}" in p for p in caught.value.problems)


def test_a_lock_names_its_owner(tmp_path: Path) -> None:
    """Two owners of one folder cannot be."""
    with hold(tmp_path / "lock"), pytest.raises(ConfigError, match=f"pid {os.getpid()}"), hold(tmp_path / "lock"):
        pass
    with hold(tmp_path / "lock"):
        pass


def test_check_prints_every_problem_and_leaves(tmp_path: Path) -> None:
    """--check: exit 0 and a word on a good configuration, exit 2 and all problems on a bad one; nothing is started."""
    runner = CliRunner()
    good = runner.invoke(main, ["collect", "--check", "--lake", str(tmp_path / "lake")])
    assert (good.exit_code, good.output) == (0, "the configuration is good\n")
    bad = runner.invoke(
        main, ["collect", "--check", "--grpc", "x", "--http", "y", "--config", str(tmp_path / "no.yaml")]
    )
    assert bad.exit_code == 2
    (tmp_path / "c.yaml").write_text("telemetri: {endpoint: 1}")
    bad = runner.invoke(main, ["collect", "--check", "--grpc", "x", "--config", str(tmp_path / "c.yaml")])
    assert bad.exit_code == 2
    assert "--grpc: must be HOST:PORT" in bad.output
    assert "did you mean telemetry.endpoint?" in bad.output
    assert not (tmp_path / "lake").exists()


class FullDisk(wal._OsFile):
    """A segment file on a disk that can be full."""

    full = False

    def write(self, data: bytes, offset: int) -> None:
        if FullDisk.full:
            super().write(data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(data, offset)


def test_a_full_disk_pauses_and_resumes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC refuses retryably and keeps nothing by halves; with room again the next request is taken."""
    monkeypatch.setattr(intake_module, "PAUSE_AFTER_FAILURE_S", 0.05)

    async def scenario() -> None:
        intake = Intake(SegmentWriter(tmp_path, open_file=FullDisk), Limits(free_disk_bytes=0), Counters())
        writing = asyncio.create_task(intake.run())
        await intake.accept(Signal.TRACES, b"before")
        FullDisk.full = True
        for _ in range(2):
            with pytest.raises(RetryableError, match="No space left"):
                await intake.accept(Signal.TRACES, b"refused")
        FullDisk.full = False
        async with asyncio.timeout(10):
            while intake.refusal() is not None:  # noqa: ASYNC110 - the pause ends by the clock
                await asyncio.sleep(0.01)
        await intake.accept(Signal.TRACES, b"after")
        intake.stop()
        await writing

    asyncio.run(scenario())
    logged = [r.payload for path in wal.sealed_segments(tmp_path) for r in wal.read_segment(path)]
    assert logged == [b"before", b"after"]


def test_many_requests_share_a_sync(tmp_path: Path) -> None:
    """A thousand concurrent requests are durable after a few syncs, and each is logged once."""
    counters = Counters()

    async def scenario() -> None:
        intake = Intake(SegmentWriter(tmp_path), Limits(free_disk_bytes=0), counters)
        writing = asyncio.create_task(intake.run())
        await asyncio.gather(*(intake.accept(Signal.LOGS, str(i).encode()) for i in range(1000)))
        intake.stop()
        await writing

    asyncio.run(scenario())
    logged = [int(r.payload) for path in wal.sealed_segments(tmp_path) for r in wal.read_segment(path)]
    assert sorted(logged) == list(range(1000))
    assert counters.log_syncs < 100


def test_health_and_collector_json_say_where_everything_is(new_collector: Callable[..., Any]) -> None:
    """/healthz names lake, state, queue and every exporter's cursor."""
    collector = new_collector()
    collector.start()
    collector.wait_for(lambda: "lake" in collector.health().get("exporters", {}), "the worker has published")
    health = collector.health()
    assert (health["status"], health["lake"], health["state"]) == ("ok", str(collector.lake), str(collector.state))
    assert health["exporters"]["lake"]["cursor"] == 0
    assert httpx.get(f"http://{collector.addresses['telemetry']}/metrics").status_code == 200
    assert collector.stop() == 0


@pytest.mark.parametrize("module", ["grpc", "uvicorn", "deltalake"])
def test_a_missing_extra_is_named(module: str, tmp_path: Path) -> None:
    """Without a part that the collector needs, the error is the pip command that mends it, and no traceback."""
    program = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from hubscope.console.main import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, "collect", "--lake", str(tmp_path / "lake")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install 'hubscope[collector]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("until", ["its command runs", "its front starts", "its front was told first"])
def test_a_stop_in_the_first_moments_of_a_start_ends_with_0(
    new_collector: Callable[..., Any], tmp_path: Path, until: str
) -> None:
    """SIGTERM while the collector is still importing, and while its front is: 0, and no word of a failed start."""
    collector = new_collector()
    collector.start(wait=False)
    if until == "its command runs":
        status = Path(f"/proc/{collector.process.pid}/status")
        if not status.exists():
            pytest.skip("no /proc")
        collector.wait_for(lambda: catches(status, signal.SIGTERM), "it handles SIGTERM")
    else:
        front = collector.wait_for(lambda: collector.pid_of("front"), "its front starts")
        if until == "its front was told first":
            os.kill(front, signal.SIGTERM)
    assert collector.stop() == 0, collector.output
    assert "did not start" not in collector.output
    assert "Traceback" not in collector.output


def catches(status: Path, number: signal.Signals) -> bool:
    (mask,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)

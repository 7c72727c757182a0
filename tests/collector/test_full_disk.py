"""A disk that fills: a real one, of 96 MiB, under a real collector, also in the middle of a commit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from deltalake import DeltaTable
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # ships no types
from grpc_status import rpc_status  # type: ignore[import-untyped]  # ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.console import collector_link
from hubscope.exporters.disk import MIN_FREE_BYTES
from hubscope.exporters.lake import LakeExporter
from hubscope.lake_schema import TRACES

DISK_BYTES = 96 << 20
FILES = 100_000
START_NS, DAY = 1_700_000_000_000_000_000, "2023-11-14"
# What must never reach anybody's terminal. The last one is how the front and the worker say "a bug".
NEVER = ("Traceback", "panicked", "backtrace", "bug")


class Disk:
    """A file system of its own, whose room and whose number of files can be changed at any moment."""

    def __init__(self, path: Path) -> None:
        """Mounts it on a folder, which it makes; what the folder holds already is on the new disk too."""
        self.path = path
        self.others: list[Disk] = []  # mounted in this one
        path.mkdir(parents=True, exist_ok=True)
        held = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
        self._mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs")
        for name, content in held.items():
            (path / name).write_bytes(content)

    def leave(self, free_bytes: int) -> None:
        """Let there be no more room than that, whatever is written just now."""
        with contextlib.suppress(subprocess.CalledProcessError):  # written faster than we asked
            self._mount("-o", f"remount,size={max(4096, shutil.disk_usage(self.path).used + free_bytes)}", "tmpfs")

    def take_no_more_files(self) -> None:
        deadline_s = time.monotonic() + 10
        while True:
            used = os.statvfs(self.path)
            try:
                self._mount("-o", f"remount,nr_inodes={used.f_files - used.f_ffree}", "tmpfs")
                return
            except subprocess.CalledProcessError:  # a file was made between the two: fewer than there are is refused
                if time.monotonic() > deadline_s:
                    raise

    def make_room(self) -> None:
        self._mount("-o", f"remount,size={DISK_BYTES},nr_inodes={FILES}", "tmpfs")

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        self.leave(0)
        yield
        self.make_room()

    @contextlib.contextmanager
    def full_within(self, table: Path, how: str) -> Iterator[None]:
        """Full for who writes this table, while the lake's disk has room when it is asked."""
        if how == "no file":
            self.take_no_more_files()
            yield
            self.make_room()
            return
        small = Disk(table / (f"Date={DAY}" if how == "in the data" else "_delta_log"))
        small.leave(4096 if how == "in the data" else 0)
        self.others.append(small)
        yield
        small.make_room()

    def unmount(self) -> None:
        for disk in (*self.others, self):
            subprocess.run(["umount", "-l", str(disk.path)], check=True)

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.path)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of its own; skips where a file system cannot be mounted."""
    try:
        made = Disk(tmp_path / "disk")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        pytest.skip(f"a tmpfs cannot be mounted here: {reason}")
    yield made
    made.unmount()


def request(chance: random.Random, spans: int = 20) -> tuple[bytes, list[str]]:
    """A request, and the ids of its spans."""
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    ids = [chance.randbytes(8) for _ in range(spans)]
    trace_id = chance.randbytes(16)
    for span_id in ids:
        scope.spans.add(
            trace_id=trace_id,
            span_id=span_id,
            name=chance.randbytes(50).hex(),
            kind=2,
            start_time_unix_nano=START_NS,
            end_time_unix_nano=START_NS + 10**7,
        )
    return made.SerializeToString(), [span_id.hex() for span_id in ids]


class Sender:
    """Sends over HTTP and remembers what was acknowledged."""

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self.chance = random.Random(5)
        self.acknowledged: list[str] = []

    def send(self) -> httpx.Response:
        payload, ids = request(self.chance)
        headers = {"Content-Type": "application/x-protobuf"}
        url = f"http://{self.collector.addresses['http']}/v1/traces"
        answer = httpx.post(url, content=payload, headers=headers, timeout=20)
        if answer.status_code == 200:
            self.acknowledged += ids
        return answer

    def refused(self) -> httpx.Response | None:
        answer = self.send()
        return answer if answer.status_code != 200 else None


def spans_in(lake: Path) -> Counter[str]:
    path = f"{lake}/{TRACES}"
    if not DeltaTable.is_deltatable(path):
        return Counter()
    return Counter(DeltaTable(path).to_pyarrow_table(columns=["SpanId"])["SpanId"].to_pylist())


def all_there(lake: Path, sender: Sender) -> bool:
    return spans_in(lake) == Counter(sender.acknowledged)


def configured(tmp_path: Path, *flags: str) -> tuple[str, ...]:
    """Flags of a collector that goes on until its disk is nearly full, and has more time to stop than a test waits."""
    file = tmp_path / "collector.yaml"
    file.write_text("log: {min_free_disk: 2MiB}\nshutdown: {grace: 300s}\n")
    return ("--config", str(file), *flags)


def assert_quiet(text: str) -> None:
    for word in NEVER:
        assert word not in text, text


def test_a_full_disk_refuses_and_goes_on_by_itself(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any]
) -> None:
    """Log and lake on a disk that fills: 503 and UNAVAILABLE with a time to come again; then all is there, once."""
    lake = disk.path / "lake"
    collector = new_collector(*configured(tmp_path), lake=lake)
    collector.output_file = tmp_path / "output.txt"
    collector.start()
    sender = Sender(collector)
    pids = collector.pid_of("front"), collector.wait_for(lambda: collector.pid_of("worker"), "the worker runs")
    assert sender.send().status_code == 200
    collector.wait_for(lambda: all_there(lake, sender), "the first spans are in the lake")
    sender.send()  # most likely still in the log when the disk is full
    disk.leave(0)
    answer = collector.wait_for(sender.refused, "a request is refused")
    assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True)
    payload, _ = request(sender.chance)
    with grpc.insecure_channel(collector.addresses["grpc"]) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(payload, timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert rpc_status.from_call(caught.value).details[0].Unpack(RetryInfo())
    collector.wait_for(lambda: collector.health().get("status") == "refusing", "/healthz says so")
    assert re.search("No space left|the disk is nearly full", collector.health()["reason"])
    disk.make_room()
    collector.wait_for(lambda: sender.send().status_code == 200, "requests are taken again")
    collector.wait_for(lambda: all_there(lake, sender), "everything acknowledged is in the lake, once")
    collector.wait_for(lambda: collector.health().get("status") == "ok", "ready again")
    assert (collector.pid_of("front"), collector.pid_of("worker")) == pids
    assert collector.stop() == 0
    assert_quiet(collector.output)


def test_a_lake_without_room_for_its_tables_is_made_later(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any]
) -> None:
    """A collector whose lake has never had room takes what comes, says degraded, and writes it all in the end."""
    lake = disk.path / "lake"
    lake.mkdir()
    collector = new_collector(*configured(tmp_path, "--state", str(tmp_path / "state")), lake=lake)
    collector.state_folder, collector.output_file = tmp_path / "state", tmp_path / "output.txt"
    with disk.full():
        collector.start()
        sender = Sender(collector)
        for _ in range(3):
            assert sender.send().status_code == 200
        collector.wait_for(lambda: collector.health().get("status") == "degraded", "/healthz says so")
        worker = collector.pid_of("worker")
    collector.wait_for(lambda: all_there(lake, sender), "everything acknowledged is in the lake, once")
    assert collector.pid_of("worker") == worker
    assert collector.stop() == 0
    assert_quiet(collector.output)


@pytest.mark.parametrize("is_log_there_too", [False, True])
def test_the_stop_does_not_wait_for_a_full_disk(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any], is_log_there_too: bool
) -> None:
    """Taken and degraded while the lake has no room; the stop does not wait for some; later all is there."""
    lake = disk.path / "lake"
    flags = () if is_log_there_too else ("--state", str(tmp_path / "state"))
    collector = new_collector(*configured(tmp_path, *flags), lake=lake)
    collector.state_folder, collector.output_file = (
        None if is_log_there_too else tmp_path / "state",
        tmp_path / "output.txt",
    )
    collector.start()
    sender = Sender(collector)
    assert sender.send().status_code == 200
    collector.wait_for(lambda: all_there(lake, sender), "the first spans are in the lake")
    if is_log_there_too:
        disk.leave(MIN_FREE_BYTES // 2)  # the lake takes nothing any more, the log does
    else:
        disk.leave(0)
    for _ in range(5):
        assert sender.send().status_code == 200
    collector.wait_for(lambda: collector.health().get("status") == "degraded", "/healthz says so")
    assert collector.health()["ready"] is True
    assert "No space left" in collector.health()["reason"]
    disk.leave(0)
    assert collector.stop() == 0, "long before its grace is over, which is for what can be written"
    disk.make_room()
    collector.start()
    collector.wait_for(lambda: all_there(lake, sender), "what waited in the log is in the lake")
    assert collector.stop() == 0
    assert_quiet(collector.output)


@pytest.mark.parametrize("how", ["no file", "in the data", "in the log"])
def test_a_disk_that_fills_in_the_middle_of_a_commit(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any], how: str
) -> None:
    """There is room when it is looked at, and none when the commit is made. Nothing is lost, repeated, or panicked."""
    lake = disk.path / "lake"
    collector = new_collector(*configured(tmp_path, "--state", str(tmp_path / "state")), lake=lake)
    collector.state_folder, collector.output_file = tmp_path / "state", tmp_path / "output.txt"
    collector.start()
    sender = Sender(collector)
    worker = collector.wait_for(lambda: collector.pid_of("worker"), "the worker runs")
    assert sender.send().status_code == 200
    collector.wait_for(lambda: all_there(lake, sender), "the first spans are in the lake")
    with disk.full_within(lake / TRACES, how):
        for _ in range(3):
            assert sender.send().status_code == 200
        collector.wait_for(lambda: "No space left on device" in collector.output, "a commit met the full disk")
        collector.wait_for(lambda: collector.health().get("status") == "degraded", "/healthz says so")
    collector.wait_for(lambda: all_there(lake, sender), "everything acknowledged is in the lake, once")
    collector.wait_for(lambda: collector.health().get("status") == "ok", "ready again")
    assert collector.pid_of("worker") == worker
    assert collector.stop() == 0
    assert_quiet(collector.output)
    assert not (tmp_path / "state" / "dead-letter").exists()


def data_files(lake: Path) -> int:
    return sum(1 for _ in lake.glob(f"{TRACES}/Date=*/*.parquet"))


@pytest.mark.integration
def test_a_disk_that_fills_and_empties_at_any_moment(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any]
) -> None:
    """Room comes and goes for a minute while spans come: each acknowledged one is in the lake once."""
    lake, chance = disk.path / "lake", random.Random(1)
    collector = new_collector(*configured(tmp_path, "--state", str(tmp_path / "state")), lake=lake)
    collector.state_folder, collector.output_file = tmp_path / "state", tmp_path / "output.txt"
    collector.start()
    sender, worker = Sender(collector), collector.wait_for(lambda: collector.pid_of("worker"), "the worker runs")
    end_s = time.monotonic() + 60.0
    while time.monotonic() < end_s:
        assert sender.send().status_code == 200
        disk.make_room()
        before, look_until_s = data_files(lake), time.monotonic() + 5.0
        while data_files(lake) == before and time.monotonic() < look_until_s:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.02))  # a part of the commit that has begun
        disk.leave(chance.choice((0, 4096, 8192, 16_384, 65_536)))
    disk.make_room()
    collector.wait_for(lambda: all_there(lake, sender), "everything acknowledged is in the lake, once", 60.0)
    assert collector.pid_of("worker") == worker
    assert collector.output.count("No space left on device") > 1, "commits met the full disk"
    assert collector.stop() == 0
    assert_quiet(collector.output)
    assert not (tmp_path / "state" / "dead-letter").exists()


def test_a_full_state_folder_makes_no_dead_letters(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any]
) -> None:
    """A segment that waits for room in the state folder is begun again and again, and not set aside for that."""
    derived = Disk(tmp_path / "state" / "derived")
    disk.others.append(derived)
    flags = ("--state", str(tmp_path / "state"), "--forward", "http://127.0.0.1:9")
    collector = new_collector(*configured(tmp_path, *flags), lake=tmp_path / "lake")
    collector.state_folder, collector.output_file = tmp_path / "state", tmp_path / "output.txt"
    (derived.path / "ballast").write_bytes(bytes(4096))
    derived.leave(0)
    collector.start()
    sender, worker = Sender(collector), collector.wait_for(lambda: collector.pid_of("worker"), "the worker runs")
    assert sender.send().status_code == 200
    collector.wait_for(lambda: collector.output.count("waits: [Errno 28]") > 2, "it was begun three times")
    assert spans_in(tmp_path / "lake") == Counter()
    assert json.loads((tmp_path / "state" / "attempts.json").read_text())["deaths"] == {}, "no worker died of it"
    derived.make_room()
    collector.wait_for(lambda: all_there(tmp_path / "lake", sender), "everything acknowledged is in the lake, once")
    assert collector.pid_of("worker") == worker
    collector.kill_all()  # a stop would give the destination, which is not there, its time
    assert_quiet(collector.output)
    assert not (tmp_path / "state" / "dead-letter").exists()


def test_a_trial_without_room_blames_no_request(disk: Disk, tmp_path: Path, new_collector: Callable[..., Any]) -> None:
    """A worker that was killed in a segment, and whose successor has no room to try its requests: they wait for it."""
    state = disk.path / "state"
    collector = new_collector(*configured(tmp_path, "--state", str(state)), lake=tmp_path / "lake")
    collector.state_folder, collector.output_file = state, tmp_path / "output.txt"
    collector.start()
    sender, worker = Sender(collector), collector.wait_for(lambda: collector.pid_of("worker"), "the worker runs")
    collector.wait_for(lambda: (state / "worker.json").exists(), "it works")
    os.kill(worker, signal.SIGSTOP)
    assert sender.send().status_code == 200
    (sealed,) = collector.wait_for(lambda: list((state / "wal").glob("*.wal")), "the segment is sealed")
    (state / "attempts.json").write_text(json.dumps({"begun": [int(sealed.stem)], "deaths": {}}))
    disk.leave(512 << 10)
    os.kill(worker, signal.SIGKILL)
    collector.wait_for(lambda: "worker: No space left to write" in untold_paths(collector.output), "the trial waits")
    disk.make_room()
    collector.wait_for(lambda: all_there(tmp_path / "lake", sender), "everything acknowledged is in the lake, once")
    assert collector.stop() == 0
    assert_quiet(collector.output)
    assert not (state / "dead-letter").exists()


def untold_paths(text: str) -> str:
    """Messages without the paths that they begin with."""
    return re.sub(r"worker: /[^:]*: ", "worker: ", text)


def hubscope(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))} | environment
    command = [sys.executable, "-m", "hubscope.console", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ, check=False)


def a_file(tmp_path: Path, requests: int = 5) -> tuple[Path, list[str]]:
    """A file of requests in its length-prefixed form, and the ids of their spans."""
    chance, ids, file = random.Random(9), [], tmp_path / "traces.bin"
    with file.open("wb") as out:
        for _ in range(requests):
            payload, of_request = request(chance)
            out.write(len(payload).to_bytes(4, "big") + payload)
            ids += of_request
    return file, ids


@pytest.mark.parametrize("how", ["before the lake is made", "before", "no file", "in the data", "in the log"])
def test_an_import_says_once_that_the_disk_is_full_and_goes_on_later(disk: Disk, tmp_path: Path, how: str) -> None:
    """One message with the remedy and exit code 4, wherever it meets the full disk; the next import completes it."""
    lake = disk.path / "lake"
    file, ids = a_file(tmp_path)
    if how != "before the lake is made":
        LakeExporter(str(lake))
    with disk.full_within(lake / TRACES, how) if how in ("no file", "in the data", "in the log") else disk.full():
        done = hubscope("import", "--lake", str(lake), str(file))
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 2, done.stderr
    assert re.search("No space left", done.stderr)
    assert "make room; the same command then goes on where this one stopped" in done.stderr
    assert_quiet(done.stderr)
    assert hubscope("import", "--lake", str(lake), str(file)).returncode == 0
    assert spans_in(lake) == Counter(ids)


def test_a_report_that_has_no_room_says_so(disk: Disk, tmp_path: Path) -> None:
    """`report --output` on a full disk: one message, exit code 4, and the old file as it was; also the lake's own."""
    lake = disk.path / "lake"
    file, _ = a_file(tmp_path)
    assert hubscope("import", "--lake", str(lake), str(file)).returncode == 0
    output = disk.path / "report.html"
    output.write_text("the old one")
    arguments = ("report", "--lake", str(lake), "--format", "html", "--output", str(output))
    with disk.full():
        assert hubscope("report", "--lake", str(lake)).returncode == 0, "a report needs no room"
        done = hubscope(*arguments)
    assert done.returncode == 4, done.stderr
    assert f"{output} cannot be written: No space left on device" in done.stderr
    assert "make room" in done.stderr
    assert_quiet(done.stderr)
    assert output.read_text() == "the old one"
    done = hubscope(*arguments)
    assert done.returncode == 0, done.stderr
    assert "<html" in output.read_text()


ANY_PORT = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--telemetry", "127.0.0.1:0")


@pytest.mark.parametrize("free_bytes", [0, 32 << 20])
def test_a_run_on_a_full_disk_starts_nothing(disk: Disk, free_bytes: int) -> None:
    """`hubscope run` whose collector would take nothing: a message that says why, exit code 4, and nothing is left."""
    lake = disk.path / "lake"
    lake.mkdir()
    disk.leave(free_bytes)
    done = hubscope("run", "--lake", str(lake), *ANY_PORT, "--", sys.executable, "-c", "print('ran')")
    assert done.returncode == 4, done.stderr
    assert ("No space left" if not free_bytes else "the disk is nearly full") in done.stderr
    assert "make room" in done.stderr
    assert "ran" not in done.stdout
    assert_quiet(done.stderr)
    assert collector_link.recorded(lake / ".state") is None


def test_a_run_whose_disk_fills_meanwhile_says_so(disk: Disk, tmp_path: Path) -> None:
    """The program runs to its end with its own exit code, and what became of its telemetry is said with the reason."""
    lake = disk.path / "lake"
    program = (
        "import contextlib, os, sqlite3\n"
        "database = sqlite3.connect(':memory:')\n"
        "for _ in range(20): database.execute('SELECT 1')\n"
        f"with contextlib.suppress(OSError), open({str(disk.path / 'ballast')!r}, 'wb', buffering=0) as file:\n"
        "    while file.write(bytes(4096)): pass\n"
        "raise SystemExit(3)\n"
    )
    (configuration,) = configured(tmp_path)[1:]
    done = hubscope(
        "run", "--lake", str(lake), *ANY_PORT, "--", sys.executable, "-c", program, HUBSCOPE_CONFIG=configuration
    )
    assert done.returncode == 3, done.stderr
    assert re.search("not everything is in the lake yet|nothing of this run was stored", done.stderr), done.stderr
    assert "No space left" in done.stderr or "disk is nearly full" in done.stderr
    assert_quiet(done.stderr)


@pytest.mark.parametrize("begun", [False, True])
def test_a_collector_that_is_started_on_a_full_disk_refuses_and_resumes(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any], begun: bool
) -> None:
    """It starts, refuses retryably, says why, and with room again takes and writes all by itself; also after a kill."""
    lake = disk.path / "lake"
    collector = new_collector(*configured(tmp_path), lake=lake)
    collector.output_file = tmp_path / "output.txt"
    collector.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("grpc", "http", "telemetry")}
    sender = Sender(collector)
    if begun:
        collector.start()
        assert sender.send().status_code == 200
        collector.kill_all()
    with disk.full():
        collector.start(wait=False)
        collector.wait_for(lambda: collector.health().get("status") == "refusing", "/healthz says so", 60.0)
        assert re.search("No space left|disk is full|the disk is nearly full", collector.health()["reason"])
        answer = sender.send()
        assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True)
        payload, _ = request(sender.chance)
        with grpc.insecure_channel(collector.addresses["grpc"]) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(payload, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert collector.process.poll() is None
        found = collector_link.recorded(lake / ".state") or {}
        assert (found.get("pid"), found.get("addresses")) == (collector.process.pid, collector.addresses)
        assert f"pid {collector.process.pid}" in told_by_status(lake)
    assert collector_link.recorded(tmp_path) is None  # another folder has no collector, full or not
    collector.wait_for(lambda: sender.send().status_code == 200, "requests are taken again")
    collector.wait_for(lambda: all_there(lake, sender), "everything acknowledged is in the lake, once")
    collector.wait_for(lambda: (lake / ".state" / "collector.json").exists(), "it can be found")
    collector.wait_for(lambda: collector.health().get("status") == "ok", "ready again")
    assert collector.stop() == 0
    assert "starting it again" not in collector.output
    assert_quiet(collector.output)


def test_a_collector_is_stopped_while_its_disk_is_full(
    disk: Disk, tmp_path: Path, new_collector: Callable[..., Any]
) -> None:
    """One that was started on a full disk ends at once with 0, and what a former one left in the log stays there."""
    lake = disk.path / "lake"
    collector = new_collector(*configured(tmp_path), lake=lake)
    collector.output_file = tmp_path / "output.txt"
    collector.start()
    sender = Sender(collector)
    assert sender.send().status_code == 200
    collector.kill_all()
    with disk.full():
        collector.start(wait=False)
        collector.wait_for(lambda: collector.health().get("status") == "refusing", "/healthz says so", 60.0)
        assert collector.stop() == 0
    collector.start()
    collector.wait_for(lambda: all_there(lake, sender), "everything acknowledged is in the lake, once")
    assert collector.stop() == 0
    assert_quiet(collector.output)


def told_by_status(lake: Path) -> str:
    command = [sys.executable, "-m", "hubscope.console", "status", "--lake", str(lake)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])

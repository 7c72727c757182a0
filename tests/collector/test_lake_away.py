"""A lake that is away holds up nobody else, and has everything once when it is back, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.deaths import MAX_DEATHS, Deaths
from hubscope.collector.kept_rows import KeptRows
from hubscope.collector.lake_queue import IN_MEMORY, Handed, LakeQueue
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.wal import Record, Signal, sealed_segments
from hubscope.exporters.forward import ForwardConfig
from hubscope.lake_schema import SCHEMAS, TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.options import ProcessorOptions, SamplingOptions
from tests.collector.test_full_disk import Disk
from tests.collector.test_worker import KILLER, Destination, Lab, plugin_calls, spans_request, until

SECOND_NS = 10**9
START_NS = 1_700_000_000 * SECOND_NS
DEADLY_IN_THE_LAKE = f"""
import os, sys
if {{everywhere}} or "hubscope.collector.worker" in sys.orig_argv:
    from hubscope.exporters import lake
    written = lake.write_rows
    def deadly(storage, name, rows, *rest):
        if "SpanName" in rows.column_names and {KILLER!r} in rows["SpanName"].to_pylist(): os.abort()
        return written(storage, name, rows, *rest)
    lake.write_rows = deadly
"""


class Lake:
    """A lake's folder that can be taken away: a file stands in the place of each table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in SCHEMAS:
            with suppress(FileNotFoundError):
                (self.folder / name).rename(self.folder / f".away-{name}")
            (self.folder / name).write_text("in the way")

    def come_back(self) -> None:
        for name in SCHEMAS:
            (self.folder / name).unlink()
            with suppress(FileNotFoundError):
                (self.folder / f".away-{name}").rename(self.folder / name)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table, in an order of their own."""
        found = {}
        for name in SCHEMAS:
            if DeltaTable.is_deltatable(f"{self.folder}/{name}"):
                rows = DeltaTable(f"{self.folder}/{name}").to_pyarrow_table().to_pylist()
                found[name] = sorted(rows, key=repr)
        return found


class AwayLab(Lab):
    """A log and a destination that is healthy, beside a lake that comes and goes."""

    def __init__(self, folder: Path, destination: Destination) -> None:
        super().__init__(folder)
        self.destination = destination
        self.lake = Lake(folder / "lake")
        self.settings = replace(self.settings, forward=(ForwardConfig("there", destination.url),), stop_grace_s=2.0)

    def add_all(self, records: list[Record]) -> int:
        """A segment each."""
        return [self.add(record) for record in records][-1]

    def of_lake(self, key: str) -> Any:
        return self.status().get("exporters", {}).get("lake", {}).get(key)

    def kept(self) -> list[int]:
        return KeptRows(self.state).segments()

    def processed(self) -> int:
        return Cursor(self.state, "processed", is_exporter=False).segment

    def written(self) -> int:
        return Cursor(self.state, "lake").segment

    def finish(self) -> str:
        """A worker more, with all the time it needs to bring everything into the lake."""
        self.settings = replace(self.settings, stop_grace_s=60.0)
        return self.drain()

    def kill(self, worker: subprocess.Popen[str]) -> None:
        worker.kill()
        worker.wait()

    def deadly(self, folder: Path, *, everywhere: bool) -> None:
        """Every process, or every worker, dies that writes a span of the name KILLER to a lake."""
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(DEADLY_IN_THE_LAKE.format(everywhere=everywhere))
        self.environment["PYTHONPATH"] = str(folder)


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Callable[[str], AwayLab]]:
    made: list[AwayLab] = []

    def make(name: str) -> AwayLab:
        made.append(AwayLab(tmp_path / name, Destination()))
        return made[-1]

    yield make
    for lab in made:
        lab.destination.close()
        for worker in lab.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            if worker.stderr:
                worker.stderr.close()


@pytest.fixture
def lab(labs: Callable[[str], AwayLab]) -> AwayLab:
    return labs("away")


def calls(count: int) -> list[Record]:
    """A request a segment: plugin calls, of which KPIs and overheads are derived, half a second apart."""
    now_ns = time.time_ns()
    return [plugin_calls(3)._replace(received_unix_nano=now_ns + n * SECOND_NS // 2) for n in range(count)]


def undisturbed(lab: AwayLab, records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a lake that was always there."""
    lab.add_all(records)
    lab.finish()
    assert lab.written() == len(records)
    assert not (lab.state / "rows").exists(), "where the lake keeps up, nothing is kept"
    assert not Cursor(lab.state, "processed", is_exporter=False).exists
    return lab.lake.rows()


@pytest.mark.parametrize("before", [0, 3])
def test_a_lake_that_is_away_holds_up_nobody(labs: Callable[[str], AwayLab], before: int) -> None:
    """Away from the start or in the middle: the destination gets all meanwhile, and the lake all when it is back."""
    records = calls(15)
    wanted = undisturbed(labs("undisturbed"), records)
    lab = labs("away")
    if before:
        lab.add_all(records[:before])
        worker = lab.start()
        until(lambda: lab.of_lake("cursor") == before, "the lake has the first")
        lab.lake.leave()
    else:
        lab.lake.leave()
        worker = lab.start()
    last = lab.add_all(records[before:])
    until(lambda: len(lab.destination.span_names()) == 15 * 6, "the destination has every span")
    until(lambda: lab.of_lake("kept_segments") == 15 - before - IN_MEMORY, "what waits on the disk is told")
    assert lab.of_lake("kept_bytes") > 0
    assert "in the way" not in lab.of_lake("last_error")
    assert TRACES in lab.of_lake("last_error")
    assert lab.written() == before
    assert lab.processed() == last
    assert lab.kept() == list(range(before + 1, last + 1))
    assert len(json.loads((lab.state / "attempts.json").read_text())["begun"]) <= 1
    assert "hub" in {kpi["service"] for kpi in lab.status()["kpis"]}
    lab.lake.come_back()
    until(lambda: lab.of_lake("cursor") == last, "the lake has caught up")
    until(lambda: (lab.of_lake("kept_segments"), lab.of_lake("kept_bytes")) == (0, 0), "nothing waits")
    until(lambda: not lab.kept(), "what was kept is gone")
    until(lambda: not sealed_segments(lab.settings.wal_dir), "the log is empty")
    assert lab.of_lake("last_error") == ""
    assert lab.of_lake("sent") == 15
    assert lab.lake.rows() == wanted
    lab.add(spans_request("once more"))
    until(lambda: lab.of_lake("cursor") == last + 1, "the next one goes in")
    assert lab.processed() == last, "through memory again"
    lab.stop(worker)
    assert lab.letters() == []


def test_kills_meanwhile_lose_nothing(labs: Callable[[str], AwayLab]) -> None:
    """A worker killed three times while the lake is away, and twice while it catches up: the same rows, once."""
    records = calls(24)
    wanted = undisturbed(labs("undisturbed"), records)
    lab = labs("away")
    lab.lake.leave()
    for turn in range(3):
        lab.add_all(records[turn * 8 : turn * 8 + 8])
        worker = lab.start()
        spans = (turn + 1) * 8 * 6
        until(lambda spans=spans: len(lab.destination.span_names()) >= spans, "the destination has them")
        lab.kill(worker)
    assert lab.written() == 0
    until_processed = lab.processed()
    assert until_processed > 8
    lab.lake.come_back()
    for _ in range(2):
        worker = lab.start()
        before = lab.written()
        until(lambda before=before: lab.written() > before, "it catches up")
        lab.kill(worker)
    lab.finish()
    assert lab.lake.rows() == wanted
    assert lab.letters() == []
    assert lab.kept() == []


def test_sampling_goes_on_meanwhile(labs: Callable[[str], AwayLab]) -> None:
    """With sampling, the lake has the same spans and adjusted counts after an absence and two kills."""
    sampling = ProcessorOptions(sampling=SamplingOptions(enabled=True, ratio=0.5, wait_s=1.0))
    records = []
    for number in range(20):
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        for trace in range(4):
            spans.add(
                name=f"s{number}.{trace}", trace_id=os.urandom(16), span_id=b"i" * 8,
                start_time_unix_nano=START_NS, end_time_unix_nano=START_NS + 1,
            )  # fmt: skip
        received_ns = START_NS + number * SECOND_NS // 2
        records.append(Record(Signal.TRACES, request.SerializeToString(), received_ns))
    calm, lab = labs("undisturbed"), labs("away")
    for one in (calm, lab):
        one.settings = replace(one.settings, processors=sampling)
    wanted = undisturbed(calm, records)
    assert 0 < len(wanted[TRACES]) < 80
    lab.lake.leave()
    for turn in range(2):
        last = lab.add_all(records[turn * 10 : turn * 10 + 10])
        worker = lab.start()
        until(lambda last=last: lab.processed() >= last, "all is processed")
        lab.kill(worker)
    lab.lake.come_back()
    lab.finish()
    assert lab.lake.rows() == wanted


@pytest.mark.parametrize("is_found_by_trial", [True, False])
def test_a_kept_request_that_kills_in_the_lake_is_set_aside(
    lab: AwayLab, tmp_path: Path, is_found_by_trial: bool
) -> None:
    """Among segments that wait on the disk one kills each worker that writes it: it is set aside, the rest arrives."""
    lab.deadly(tmp_path / "deadly", everywhere=is_found_by_trial)
    lab.lake.leave()
    names = [f"s{number}" for number in range(9)]
    killer = 5
    for number, name in enumerate(names, start=1):
        more = [spans_request(KILLER)] if number == killer else []
        lab.add(spans_request(name), *more)
    worker = lab.start()
    until(lambda: lab.processed() == len(names), "all is processed")
    lab.stop(worker)
    lab.lake.come_back()
    if not is_found_by_trial:  # it dies ten times: of these the last two
        (lab.state / "attempts.json").write_text(json.dumps({"begun": [], "deaths": {killer: MAX_DEATHS - 2}}))
    deaths = 0
    while (worker := lab.start()) is not None:
        until(lambda worker=worker: worker.poll() is not None or lab.written() == len(names), "a death, or the end")
        if worker.poll() is None:
            break
        assert worker.returncode == -6
        assert lab.written() == killer - 1
        deaths += 1
    lab.stop(worker)
    assert deaths == (1 if is_found_by_trial else 2)
    letters = lab.letters()
    if is_found_by_trial:
        assert lab.names() == names
        assert [(letter["segment"], letter["record"]) for letter in letters] == [(killer, 1)]
        assert "killed the process that tried it" in letters[0]["reason"]
    else:  # the trial does not find it: the segment goes whole
        assert lab.names() == [name for name in names if name != f"s{killer - 1}"]
        assert {letter["segment"] for letter in letters} == {killer}
        assert f"died {MAX_DEATHS} times" in letters[0]["reason"]


def test_rows_that_the_disk_damaged_are_decoded_again(lab: AwayLab) -> None:
    """A kept file with a changed byte, and one that is gone: what arrived in them is in the lake, and it is said."""
    names = [f"s{number}" for number in range(8)]
    lab.lake.leave()
    for number, name in enumerate(names, start=1):
        lab.add(spans_request(name), *([Record(Signal.TRACES, b"\xff\xff", 1)] if number == 4 else []))
    worker = lab.start()
    until(lambda: lab.processed() == len(names), "all is processed")
    lab.kill(worker)
    files = KeptRows(lab.state)
    damaged = bytearray(files.path(4).read_bytes())
    damaged[-20] ^= 1
    files.path(4).write_bytes(damaged)
    files.path(6).unlink()
    lab.lake.come_back()
    talk = lab.finish()
    assert lab.names() == names
    assert f"{files.path(4)}: cannot be read: " in talk
    assert "segment 4 is decoded again, and what was derived of it is missing" in talk
    assert "segment 6 is decoded again" in talk
    letters = [letter for letter in lab.letters() if letter["payload"].endswith(".damaged")]
    assert [letter["segment"] for letter in letters] == [4]
    assert (lab.state / "dead-letter" / letters[0]["payload"]).read_bytes() == bytes(damaged)
    assert len(lab.letters()) == 2, "the request that nobody can decode is a dead letter as before"


def test_rows_that_are_gone_with_their_log_are_said_to_be_lost(lab: AwayLab) -> None:
    """Where somebody deleted the log and the disk damaged the rows, the others arrive and the loss is told."""
    lab.lake.leave()
    for number in range(5):
        lab.add(spans_request(f"s{number}"))
    worker = lab.start()
    until(lambda: lab.processed() == 5, "all is processed")
    lab.kill(worker)
    for path in sealed_segments(lab.settings.wal_dir):
        path.unlink()
    KeptRows(lab.state).path(3).write_bytes(b"")
    lab.lake.come_back()
    worker = lab.start()
    until(lambda: lab.written() == 5, "it went on")
    assert "what was in it is lost" in lab.stop(worker)
    assert lab.names() == ["s0", "s1", "s3", "s4"]


def test_a_stop_while_the_lake_is_away_ends_and_the_next_start_delivers(lab: AwayLab) -> None:
    """SIGTERM ends with 0 though the lake is away, with much to write; the next worker writes all, blaming none."""
    names = sorted(f"s{number}" for number in range(12))
    lab.settings = replace(lab.settings, stop_grace_s=0.5)
    lab.lake.leave()
    for turn in range(3):
        for name in names[turn * 4 : turn * 4 + 4]:
            lab.add(spans_request(name))
        lab.drain()
        assert json.loads((lab.state / "attempts.json").read_text()) == {"begun": [], "kept": 0, "deaths": {}}
    assert lab.destination.span_names() == names
    lab.lake.come_back()
    lab.finish()
    assert lab.names() == names
    assert lab.letters() == []


def test_a_collector_tells_that_its_lake_is_away(
    lab: AwayLab, new_collector: Callable[..., Any], tmp_path: Path
) -> None:
    """A whole collector: requests are taken and forwarded, /healthz says degraded, /metrics and `status` say how much
    waits on the disk; with the lake back it is ok, and every span is there once."""
    lake = Lake(tmp_path / "lake")
    lake.leave()
    collector = new_collector("--forward", lab.destination.url, lake=lake.folder)
    collector.start()
    sent: list[str] = []

    def send_until(condition: Callable[[], Any], what: str) -> None:
        """A request every look, so that segments go on coming."""

        def look() -> Any:
            sent.append(f"span {len(sent)}")
            headers = {"Content-Type": "application/x-protobuf"}
            body = spans_request(sent[-1]).payload
            url = f"http://{collector.addresses['http']}/v1/traces"
            assert httpx.post(url, content=body, headers=headers, timeout=20).status_code == 200
            return condition()

        collector.wait_for(look, what)

    def of_lake() -> dict[str, Any]:
        found: dict[str, Any] = collector.health().get("exporters", {}).get("lake", {})
        return found

    send_until(lambda: of_lake().get("kept_segments", 0) >= 3, "segments wait on the disk")
    assert collector.health()["status"] == "degraded"
    assert TRACES in collector.health()["reason"]
    collector.wait_for(lambda: lab.destination.span_names() == sorted(sent), "the destination has all")
    page = httpx.get(f"http://{collector.addresses['telemetry']}/metrics").text
    told = dict(re.findall(r'^(hubscope_exporter_kept_\w+){exporter="lake"} (\d+)$', page, re.M))
    assert int(told["hubscope_exporter_kept_segments"]) >= 3
    assert int(told["hubscope_exporter_kept_bytes"]) > 1000
    command = [
        sys.executable,
        "-m",
        "hubscope.console",
        "status",
        "--lake",
        str(lake.folder),
        "--watch",
        "--count",
        "1",
    ]
    looks = [
        subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=True).stdout
        for more in ((), ("--json",))
    ]
    assert re.search(r"lake \d+ segments \(.*B\) on disk", looks[0])
    (seen,) = [exporter for exporter in json.loads(looks[1])["exporters"] if exporter["name"] == "lake"]
    assert seen["kept_segments"] >= 3
    assert collector.health()["ready"]
    lake.come_back()
    send_until(lambda: of_lake().get("kept_segments") == 0, "the lake has caught up")
    collector.wait_for(lambda: collector.health().get("status") == "ok", "ready again")
    assert collector.stop() == 0
    assert sorted(row["SpanName"] for row in lake.rows()[TRACES]) == sorted(sent)
    assert "Traceback" not in collector.output


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    try:
        made = Disk(path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted here: {error}")
    try:
        yield made
    finally:
        made.unmount()


def test_a_full_disk_meanwhile_makes_it_wait(lab: AwayLab) -> None:
    """Where the disk does not take the rows, everything waits in the log; with room again the destination gets it."""
    names = sorted(f"s{number}" for number in range(8))
    with small_disk(lab.state / "rows") as disk:
        (disk.path / "ballast").write_bytes(bytes(4096))
        disk.leave(0)
        lab.lake.leave()
        worker = lab.start()
        for name in names:
            lab.add(spans_request(name))
        until(lambda: lab.destination.span_names() == names[:IN_MEMORY], "two are in memory, the third waits")
        until(lambda: list(disk.path.glob("*.new")), "it met the full disk")
        assert lab.processed() == 0
        disk.make_room()
        until(lambda: lab.destination.span_names() == names, "the destination has all")
        lab.lake.come_back()
        until(lambda: lab.names() == names, "the lake too")
        talk = lab.stop(worker)
        assert talk.count("waits for the lake, and for room to wait on disk") > 0
        assert lab.letters() == []


def test_a_path_that_is_no_folder_is_refused_at_once(lab: Lab) -> None:
    """A lake that is away may come back; one whose path is a file was a mistake, and ends with 4."""
    Path(lab.settings.lake).write_text("a file")
    worker = lab.start()
    assert worker.wait(20) == 4


# --- the parts -------------------------------------------------------------------------------------------------


def queue_at(
    state: Path, *, written: int = 0, processed: int = 0, sealed: tuple[int, ...] = (), limit_bytes: int = 1 << 30
) -> LakeQueue:
    lake, on_disk = Cursor(state, "lake"), Cursor(state, "processed", is_exporter=False)
    for cursor, number in ((lake, written), (on_disk, processed)):
        if number:
            cursor.advance(number)
    return LakeQueue(KeptRows(state), on_disk, lake, sealed, limit_bytes)


def test_a_lake_that_keeps_up_costs_no_disk(tmp_path: Path) -> None:
    """While there is room, and while a lake that is at work makes some, batches go through memory and stay there."""
    queue = queue_at(tmp_path)
    for number in range(1, IN_MEMORY + 1):
        assert queue.hand_over(Handed(number, Batch(number, 1)), lambda: False, 0.0)
    assert not queue.hand_over(Handed(9, Batch(9, 1)), lambda: False, 0.0)
    assert queue.waiting() == (0, 0)
    assert not (tmp_path / "rows").exists()


def test_what_is_outstanding_is_kept_when_the_lake_is_away(tmp_path: Path) -> None:
    """The batch that is tried, the one behind it and the new one are on the disk before the cursor says so; a queue
    made anew begins with them, and one segment whose file is gone is named by the log."""
    queue = queue_at(tmp_path)
    for number in range(1, 6):
        assert queue.hand_over(Handed(number, Batch(number, 1), 1), lambda: True, 0.0)
    assert KeptRows(tmp_path).segments() == [1, 2, 3, 4, 5]
    assert queue.on_disk == 5
    assert queue.waiting()[0] == 5 - IN_MEMORY
    KeptRows(tmp_path).path(3).unlink()
    again = queue_at(tmp_path, written=1, sealed=(3, 4, 5, 6))
    assert again.first_left == 2
    found = []
    again.close()
    while (item := again.first(threading.Event())) is not None:
        assert item.batch is None
        found.append(item.segment)
        again.done()
    assert found == [2, 3, 4, 5]
    assert again.waiting() == (0, 0)


def test_the_rows_on_the_disk_are_bounded(tmp_path: Path) -> None:
    """Beyond the limit nothing more goes to the disk while the lake is away; when it has taken some, the rest does."""
    queue = queue_at(tmp_path, limit_bytes=3 * KeptRows(tmp_path).keep(Batch(1, 1)))
    taken = [queue.hand_over(Handed(number, Batch(number, 1)), lambda: True, 0.0) for number in range(1, 8)]
    assert taken == [True] * (IN_MEMORY + 3) + [False] * 2
    for _ in range(IN_MEMORY + 1):
        queue.done()
    assert queue.hand_over(Handed(6, Batch(6, 1)), lambda: True, 0.0)


def test_the_name_of_no_destination_is_that_of_the_processed_cursor(tmp_path: Path) -> None:
    """Destinations called `processed` or `@processed` have files of their own."""
    cursors = [
        Cursor(tmp_path, "processed", is_exporter=False),
        Cursor(tmp_path, "processed"),
        Cursor(tmp_path, "@processed"),
    ]
    assert len({cursor.path for cursor in cursors}) == 3


@pytest.mark.parametrize(
    ("said", "kept", "blamed"),
    [
        ({"begun": [4, 5, 6], "deaths": {}}, (None, 0), {4, 6}),
        ({"begun": [9], "kept": 8, "deaths": {"4": 2}}, (4, 8), {4, 9}),
        ({"begun": [], "kept": 8, "deaths": {}}, (4, 8), {4}),
        ({"begun": [7, 8], "deaths": {}}, (4, 8), {4}),
        ({"begun": [], "kept": 0, "deaths": {}}, (4, 8), set()),
        ({"begun": [3], "kept": 3, "deaths": {}}, (None, 0), set()),
        ([], (4, 8), set()),
    ],
)
def test_a_death_counts_for_what_was_written_and_what_was_decoded(
    tmp_path: Path, said: Any, kept: tuple[int | None, int], blamed: set[int]
) -> None:
    """The oldest that waits for the lake, and the newest that was being decoded; none between, none after a stop."""
    path = tmp_path / "attempts.json"
    path.write_text(json.dumps(said))
    deaths = Deaths(path, 3, *kept)
    before = {int(segment): n for segment, n in said["deaths"].items()} if said else {}
    assert {segment for segment in range(12) if deaths.count(segment) > before.get(segment, 0)} == blamed


def test_an_hour_away_leaves_attempts_small(tmp_path: Path) -> None:
    """7,200 segments that wait on the disk take one number in attempts.json; after a death the first is blamed."""
    path = tmp_path / "attempts.json"
    deaths = Deaths(path, 0)
    for segment in range(1, 7201):
        deaths.begin(segment)
        if segment > IN_MEMORY:
            deaths.kept(segment)
    assert path.stat().st_size < 100
    again = Deaths(path, 10, 11, 7200)
    assert {segment for segment in range(7300) if again.count(segment)} == {11}
    again.end()
    assert Deaths(path, 10, 11, 7200).count(11) == 1

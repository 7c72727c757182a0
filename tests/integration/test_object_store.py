"""A lake at a URL of an S3-compatible server: collectors write, the lake keeps itself, every reader reads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deltalake import DeltaTable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.analytics.connect import connect
from hubscope.errors import LakeError
from hubscope.exporters import lake_merge
from hubscope.exporters.lake_policy import LakePolicy
from hubscope.exporters.lake_upkeep import Upkeep
from hubscope.lake_paths import files_of
from hubscope.lake_schema import TRACES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
ARRIVAL_DEADLINE_S = 60.0
DAY_NS = 86_400 * 10**9
FIRST = 20_000
PAGES = 40


@pytest.fixture(scope="session")
def s3_program(go_build: Callable[..., Path]) -> Path:
    """gofakes3 from the Go module proxy, built once."""
    return go_build(HERE / "s3", "github.com/johannesboyne/gofakes3/cmd/gofakes3", "gofakes3")


class Store(NamedTuple):
    url: str  # of an empty bucket
    process: subprocess.Popen[bytes]


@pytest.fixture
def bucket(store: Store) -> str:
    """The URL of an empty bucket, with the credentials in the usual environment variables."""
    return store.url


@pytest.fixture
def store(
    s3_program: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Store]:
    """An S3 server with an empty bucket, and the credentials in the usual environment variables."""
    port = free_port()
    command = [s3_program, "-host", f"127.0.0.1:{port}", "-backend", "memory", "-initialbucket", "hub", "-quiet"]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a key",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    output = tmp_path / "s3.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert process.poll() is None, output.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/hub", timeout=2):
                return True
        except OSError:
            return False

    try:
        wait_until(answers, "the S3 server answers", ARRIVAL_DEADLINE_S, output.read_text)
        yield Store("s3://hub", process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


def request(first: int, count: int, day: int = FIRST) -> bytes:
    """Spans named by their number, one trace each."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    for key, value in (("service.name", "hub"), ("service.version", "1"), ("service.instance.id", "run")):
        group.resource.attributes.add(key=key).value.string_value = value
    spans = group.scope_spans.add().spans
    for number in range(first, first + count):
        start_ns = day * DAY_NS + number * 1000
        span = spans.add(name=f"span {number:06d}", start_time_unix_nano=start_ns, end_time_unix_nano=start_ns + 10**6)
        span.trace_id, span.span_id = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    return message.SerializeToString()


def send(http: str, body: bytes) -> None:
    headers = {"content-type": "application/x-protobuf"}
    with urllib.request.urlopen(urllib.request.Request(f"{http}/v1/traces", body, headers), timeout=30) as answer:
        assert answer.status == 200


def count(lake: str) -> tuple[int, int]:
    """Spans, and different ones; none where the collector has not made the lake yet."""
    try:
        connection = connect(lake)
    except LakeError:
        return 0, 0
    found = connection.execute("SELECT count(*), count(DISTINCT SpanName) FROM otel_traces").fetchone()
    return (int(found[0]), int(found[1])) if found else (0, 0)


def told(*arguments: str) -> str:
    """What the command line prints."""
    command = [sys.executable, "-m", "hubscope.console", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "nanobind" not in done.stderr
    return done.stdout


def test_a_collector_fills_a_bucket_and_every_reader_reads_it(
    bucket: str, start_collector: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """What is sent is read back by status, sql, trace and report from the URL; after a restart nothing is twice."""
    lake = f"{bucket}/lakes/one"
    flags = ("--lake", lake, "--state", str(tmp_path / "state"))
    collector = start_collector(*flags)
    for page in range(5):
        send(collector.http, request(page * 20, 20))
    wait_until(lambda: count(lake)[0] >= 100, "100 spans are in the bucket", ARRIVAL_DEADLINE_S)
    collector.process.send_signal(signal.SIGTERM)
    assert collector.process.wait(30) == 0
    again = start_collector(*flags)
    send(again.http, request(100, 20))
    wait_until(lambda: count(lake)[0] >= 120, "20 more are in the bucket", ARRIVAL_DEADLINE_S)
    assert count(lake) == (120, 120)
    status = json.loads(told("status", "--lake", lake, "--format", "json"))
    assert {table["name"]: table["rows"] for table in status["tables"]}[TRACES] == 120
    assert "span 000007" in told("trace", f"{7:032x}", "--lake", lake)
    assert told("sql", "SELECT count(*) AS n FROM otel_traces", "--lake", lake, "--format", "csv").split() == [
        "n",
        "120",
    ]
    assert "120" in told("sql", "rollup_operations", "--lake", lake, "--param", "step_s=86400") or count(lake)
    assert "hub" in told("report", "--lake", lake)


def test_two_collectors_append_to_one_url(
    bucket: str, start_collector: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """Two collectors that write one lake at once lose nothing and double nothing."""
    lake = f"{bucket}/lakes/two"
    (tmp_path / "c.yaml").write_text("exporters: {lake: {flush_interval: 50ms}}")
    collectors = [
        start_collector("--lake", lake, "--state", str(tmp_path / name), "--config", str(tmp_path / "c.yaml"))
        for name in ("a", "b")
    ]

    def fill(which: int) -> None:
        for page in range(PAGES):
            send(collectors[which].http, request((which * PAGES + page) * 25, 25))

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(fill, which) for which in (0, 1)]:
            done.result()
    wanted = 2 * PAGES * 25
    wait_until(lambda: count(lake)[0] >= wanted, f"{wanted} spans are in the bucket", ARRIVAL_DEADLINE_S)
    assert count(lake) == (wanted, wanted)


def test_a_store_that_does_not_answer_holds_up_nobody(
    store: Store, start_collector: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """The store hangs from the start, and once more later: requests are taken and forwarded, a stop ends with 0 and the
    store has everything once when it answers again."""
    lake = f"{store.url}/lakes/away"
    there = start_collector()
    flags = ("--lake", lake, "--state", str(tmp_path / "state"), "--forward", there.http)

    def health(collector: Any) -> dict[str, Any]:
        with urllib.request.urlopen(f"{collector.telemetry}/healthz", timeout=10) as answer:
            return dict(json.load(answer))

    def kept(collector: Any) -> int:
        return int(health(collector)["exporters"].get("lake", {}).get("kept_segments", 0))

    sent = 0

    def send_some(collector: Any) -> int:
        nonlocal sent
        send(collector.http, request(sent, 10))
        sent += 10
        return sent

    store.process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        collector = start_collector(*flags)
        wait_until(lambda: send_some(collector) and kept(collector) > 1, "segments wait on disk", ARRIVAL_DEADLINE_S)  # noqa: B023
        wait_until(lambda: count(str(there.lake)) == (sent, sent), "it is forwarded", ARRIVAL_DEADLINE_S)
        wait_until(lambda: health(collector)["status"] == "degraded", "it is told", ARRIVAL_DEADLINE_S)  # noqa: B023
        collector.process.send_signal(signal.SIGTERM)
        assert collector.process.wait(60) == 0
        assert "did not stop in time" not in collector.output.read_text()
    store.process.send_signal(signal.SIGCONT)
    collector = start_collector(*flags)
    wait_until(lambda: count(lake) == (sent, sent), "the store has everything", ARRIVAL_DEADLINE_S)
    store.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: send_some(collector) and kept(collector) > 1, "segments wait on disk", ARRIVAL_DEADLINE_S)
    wait_until(lambda: count(str(there.lake)) == (sent, sent), "it is forwarded", ARRIVAL_DEADLINE_S)
    store.process.send_signal(signal.SIGCONT)
    wait_until(lambda: count(lake) == (sent, sent), "the store has everything", 3 * ARRIVAL_DEADLINE_S)
    wait_until(lambda: health(collector)["status"] == "ok", "it is well again", ARRIVAL_DEADLINE_S)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_object_store import FIRST, request
from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.segments import batch_of
from hubscope.exporters.lake import LakeExporter
from hubscope.processors.pipeline import Chain
exporter = LakeExporter(sys.argv[2], f"writer {sys.argv[3]}", upkeep=False)
for segment in range(60):
    first = (int(sys.argv[3]) * 60 + segment) * 5
    exporter.export(batch_of(segment + 1, [Record(Signal.TRACES, request(first, 5), 1)], Chain((), (), ())))
"""


def test_writers_and_merges_of_one_url_race(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that commit as fast as they can, and two upkeeps that merge what they write, lose and double
    nothing: of two commits for one version the store takes one, and the other is made anew or given up."""
    monkeypatch.setattr(lake_merge, "FILES_BEFORE_MERGE", 4)
    lake = f"{bucket}/lakes/race"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(HERE), lake, str(n)]) for n in (0, 1)]
    upkeeps = [Upkeep(lake, {}), Upkeep(lake, {})]
    with ThreadPoolExecutor(2) as threads:
        while any(writer.poll() is None for writer in writers):
            for done in [threads.submit(u._guarded, TRACES, lambda u=u: u.merge(TRACES)) for u in upkeeps]:
                done.result()
    assert [writer.wait() for writer in writers] == [0, 0]
    upkeeps[0].merge(TRACES)
    assert count(lake) == (600, 600)
    assert len(files_of(DeltaTable(f"{lake}/{TRACES}"))) < 10


def test_a_bucket_has_tiers_retention_and_vacuum(bucket: str, tmp_path: Path) -> None:
    """Merge, a cold tier at another URL, retention and vacuum do at a URL what they do in a folder."""
    from hubscope.collector.log.wal import Record, Signal
    from hubscope.collector.segments import batch_of
    from hubscope.exporters.lake import LakeExporter
    from hubscope.processors.pipeline import Chain

    lake, cold = f"{bucket}/lakes/three", f"{bucket}/cold"
    exporter = LakeExporter(lake, upkeep=False)
    for segment in range(40):
        record = Record(Signal.TRACES, request(segment * 5, 5, FIRST + segment % 2), 1)
        exporter.export(batch_of(segment + 1, [record], Chain((), (), ())))
    upkeep = Upkeep(lake, {}, None, lambda: (FIRST + 2.5) * 86_400)
    upkeep._policy = LakePolicy(cold_after_s=86_400, cold_url=cold, reader_grace_s=0.0)
    upkeep.keep()
    table = DeltaTable(f"{lake}/{TRACES}")
    base = f"{cold}/{TRACES}/{table.metadata().id}"
    assert [f.path.startswith(f"{base}/Date=2024-10-04/cold-") for f in files_of(table) if f.is_cold] == [True]
    assert count(lake) == (200, 200)
    asked = "SELECT count(*) AS n FROM otel_traces WHERE SpanName < 'span 000010'"
    assert told("sql", asked, "--lake", lake, "--format", "csv").split() == ["n", "10"]
    storage = upkeep._storages[TRACES]
    upkeep._clean(TRACES, 0.0, now=True)
    assert len(storage.listing()) == 20
    upkeep = Upkeep(lake, {}, None, lambda: (FIRST + 5) * 86_400)
    upkeep._policy = LakePolicy(retention_s=3.5 * 86_400, reader_grace_s=0.0)
    upkeep.keep()
    assert count(lake) == (100, 100)
    upkeep._policy = LakePolicy(cold_after_s=86_400, cold_url=cold, reader_grace_s=0.0)
    upkeep._clean(TRACES, 0.0, now=True)
    assert not storage.listing(base)


def test_a_local_lake_has_its_cold_days_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    """Warm days in a folder and cold ones in a bucket are read as one table, also on the locked connection of `sql`."""
    from hubscope.collector.log.wal import Record, Signal
    from hubscope.collector.segments import batch_of
    from hubscope.exporters.lake import LakeExporter
    from hubscope.processors.pipeline import Chain

    lake = str(tmp_path / "lake")
    exporter = LakeExporter(lake, upkeep=False)
    for segment, day in enumerate((FIRST, FIRST + 1)):
        exporter.export(
            batch_of(segment + 1, [Record(Signal.TRACES, request(segment * 5, 5, day), 1)], Chain((), (), ()))
        )
    upkeep = Upkeep(lake, {}, None, lambda: (FIRST + 2.5) * 86_400)
    upkeep._policy = LakePolicy(cold_after_s=86_400, cold_url=f"{bucket}/cold", min_free_disk_bytes=0)
    upkeep.keep()
    assert count(lake) == (10, 10)
    asked = "SELECT count(*) AS n, count(DISTINCT Date) AS days FROM otel_traces"
    assert told("sql", asked, "--lake", lake, "--format", "csv").split() == ["n,days", "10,2"]


def test_credentials_that_are_wrong_are_said(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be reached is an error of the lake with a way out, not a traceback."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    command = [sys.executable, "-m", "hubscope.console", "status", "--lake", f"{bucket}/lakes/none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr

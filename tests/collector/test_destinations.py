"""Destinations beside the lake: real sockets that misbehave, each next to one that does not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hubscope.collector.destination_delivery import DestinationDelivery, back_off_s
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.wal import encode_segment, sealed_segments
from hubscope.collector.outgoing import Outgoing
from hubscope.collector.sources import Requests, Waiting
from hubscope.exporters.base import Bound
from hubscope.exporters.forward import ForwardConfig, ForwardExporter
from tests.collector.destinations_lab import (
    DEADLINE_S,
    MISBEHAVIOURS,
    Healthy,
    Lab,
    Misbehaving,
    spans,
    talks_nonsense,
    until,
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.end()


@pytest.fixture
def healthy() -> Iterator[Healthy]:
    with closing(Healthy()) as made:
        yield made


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("answer", MISBEHAVIOURS)
def test_a_broken_destination_never_delays_another(
    lab: Lab, healthy: Healthy, answer: Callable[[socket.socket], None], scheme: str
) -> None:
    """Beside one that misbehaves, over either transport, the healthy destination gets every span, in order."""
    with closing(Misbehaving(answer)) as broken:
        url = f"{scheme}://127.0.0.1:{broken.port}"
        found = lab.start(ForwardConfig("broken", url, timeout_s=0.5), ForwardConfig("healthy", healthy.url))
        names = [f"s{number}" for number in range(20)]
        for name in names:
            lab.add(spans(name))
        until(lambda: healthy.names == names, "the healthy one has all")
        bad, good = found.deliveries
        until(lambda: bad.failed >= 2, "the broken one was tried again")
        assert broken.seen >= 1
        assert bad.status()["last_error"]
        assert (bad.cursor.segment, bad.status()["sent"]) == (0, 0)
        until(lambda: good.cursor.segment == lab.last, "its place is noted")
        assert len(sealed_segments(lab.settings.wal_dir)) == 20  # the broken one's place is kept


def test_a_refusal_is_said_counted_and_told_apart(lab: Lab, healthy: Healthy, caplog: pytest.LogCaptureFixture) -> None:
    """A request refused for its content is dropped, one of a destination that takes none waits: each is said once."""
    healthy.status = 400
    (delivery,) = lab.start(ForwardConfig("there", healthy.url)).deliveries
    for number in range(20):
        lab.add(spans(f"s{number}"))
    until(lambda: delivery.cursor.segment == lab.last, "all are refused")
    said = delivery.status()
    assert said["dropped_by_reason"] == {"refused": 20}
    assert not said["is_failing"]
    assert "400" in said["last_error"]
    healthy.status = 401
    lab.add(spans("kept"))
    until(lambda: delivery.failed >= 4, "it was tried again")
    assert delivery.status()["is_failing"]
    assert "401" in delivery.status()["last_error"]
    lines = [record.getMessage() for record in caplog.records if "there: " in record.getMessage()]
    assert [next(word for word in ("400", "401") if word in line) for line in lines] == ["400", "401"]
    healthy.status = 200
    until(lambda: healthy.names == ["kept"], "what waited arrives")
    until(lambda: not delivery.status()["is_failing"], "and it is well again")
    assert delivery.status()["dropped"] == 20


def test_a_connection_that_nobody_accepts_delays_nobody(lab: Lab, healthy: Healthy) -> None:
    """With a listener whose queue is full, connecting hangs; the healthy destination gets all the same everything."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        found = lab.start(ForwardConfig("black", url, timeout_s=0.5), ForwardConfig("healthy", healthy.url))
        lab.add(spans("a"))
        lab.add(spans("b"))
        until(lambda: healthy.names == ["a", "b"], "the healthy one has all")
        until(lambda: found.deliveries[0].failed >= 1, "the other was tried")


def test_a_destination_goes_on_where_it_was(lab: Lab, healthy: Healthy) -> None:
    """Each destination's own cursor survives the end of its thread: nothing is sent twice, nothing is left out."""
    config = ForwardConfig("there", healthy.url)
    lab.start(config)
    lab.add(spans("a"))
    until(lambda: Cursor(lab.state, "there").segment == 1, "its place is on disk")
    lab.end()
    lab.add(spans("b"))
    lab.start(config)
    until(lambda: healthy.names == ["a", "b"], "the rest came")


def test_a_drain_does_not_wait_for_a_destination_that_is_down(lab: Lab, healthy: Healthy) -> None:
    """When nothing more comes, a failing destination's thread ends by itself and keeps its place."""
    healthy.status = 503
    (delivery,) = lab.start(ForwardConfig("there", healthy.url)).deliveries
    lab.add(spans("a"))
    until(lambda: delivery.failed, "it was tried")
    lab.draining.set()
    delivery.join(DEADLINE_S)
    assert not delivery.is_alive()
    assert delivery.cursor.segment == 0


def test_headers_are_told_to_nobody(
    lab: Lab, healthy: Healthy, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Neither the log, nor what /metrics and /healthz are made of, nor a file but the cursor holds a header's value."""
    headers = (("authorization", "Bearer s3cr3t"),)
    healthy.status = 401
    with closing(Misbehaving(talks_nonsense)) as broken:
        url = f"grpc://127.0.0.1:{broken.port}"
        found = lab.start(ForwardConfig("a", healthy.url, headers), ForwardConfig("b", url, headers, timeout_s=0.5))
        lab.add(spans("x"))
        until(lambda: all(d.failed or d.exporter.dropped for d in found.deliveries), "both had it")  # type: ignore[attr-defined]
        said = json.dumps([delivery.status() for delivery in found.deliveries]) + caplog.text
    lab.end()
    assert "401" in said
    assert "s3cr3t" not in said
    assert not any(b"s3cr3t" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.timeout(400)  # three starts of a worker, each a few seconds, on a busy machine ten times that
def test_places_survive_kills(lab: Lab, healthy: Healthy) -> None:
    """A worker killed twice while it sends: the destination gets every span, in order, a segment twice at most
    where the kill came between its answer and the cursor's file."""
    settings = replace(lab.settings, forward=(ForwardConfig("there", healthy.url),))
    command = [sys.executable, "-m", "hubscope.collector.worker", "--settings-json", settings.to_json()]
    names: list[str] = []
    for kill in (True, True, False):
        names += [f"s{len(names) + number:02d}" for number in range(10)]
        for name in names[-10:]:
            lab.add(spans(name))
        enough = len(names) - 5 if kill else len(names)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
            until(lambda enough=enough: len(set(healthy.names)) >= enough, "it sends")  # type: ignore[misc]
            worker.kill() if kill else worker.terminate()
    assert list(dict.fromkeys(healthy.names)) == names
    assert len(healthy.names) <= len(names) + 3


class SimulatedClock:
    """Waiting passes at once; `meanwhile(seconds)` happens in the time that passed."""

    def __init__(self, meanwhile: Callable[[float], None]) -> None:
        self.now = time.time()
        self._meanwhile = meanwhile

    def now_s(self) -> float:
        return self.now

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.now += timeout_s
        self._meanwhile(timeout_s)
        return event.is_set()


@pytest.mark.parametrize("status", [503, None])
def test_a_destination_down_for_an_hour(lab: Lab, healthy: Healthy, status: int | None) -> None:
    """What waits stays within the bound, the oldest goes and is counted, and then it resumes in order without a gap.

    A segment every five seconds of simulated time, 720 in the hour. `None`: nobody listens on the port.
    """
    if status is None:
        port = socket.create_server(("127.0.0.1", 0))
        down_url = f"http://127.0.0.1:{port.getsockname()[1]}"
        port.close()
    size_bytes = len(encode_segment([spans("s000")]))
    bound = Bound(size_bytes=100 * size_bytes)
    exporter = ForwardExporter(ForwardConfig("there", healthy.url if status else down_url))
    healthy.status = status or 200
    added, passed_s, most = 0, 0.0, 0

    def meanwhile(seconds: float) -> None:
        nonlocal added, passed_s, most
        passed_s += seconds
        while added < min(passed_s, 3600.0) / 5:
            lab.add(spans(f"s{added:03d}"))
            added += 1
        most = max(most, delivery.status()["waiting_bytes"])
        if passed_s >= 3600.0 and status:
            healthy.status = 200
        elif passed_s >= 3600.0:  # somebody listens again: there, where the exporter now looks
            exporter._transport = ForwardExporter(ForwardConfig("there", healthy.url))._transport

    clock = SimulatedClock(meanwhile)
    delivery = DestinationDelivery(
        exporter,
        Cursor(lab.state, "there"),
        lab.stop,
        lab.draining,
        Requests(lab.settings.wal_dir, lab.state, Outgoing(lab.state, ForwardConfig("there", ""))),
        lambda: lab.last,
        bound,
        clock,
    )
    lab.add(spans("s000"))
    added = 1
    delivery.start()
    until(lambda: delivery.cursor.segment == 720, "it has caught up")
    lab.stop.set()
    delivery.join(DEADLINE_S)
    assert delivery.crashed is None
    said = delivery.status()
    assert healthy.names == [f"s{number:03d}" for number in range(720 - len(healthy.names), 720)]
    assert said["dropped_by_reason"] == {"too much": 720 - len(healthy.names)}
    assert said["sent"] == len(healthy.names)
    assert 95 <= len(healthy.names) <= 100
    assert most <= 102 * size_bytes  # what comes in one back-off is above it until the next look
    assert delivery.failed >= 720  # at least every five seconds


def test_what_is_too_old_is_passed_over_only_while_it_fails(lab: Lab, healthy: Healthy) -> None:
    """After a failed try what is older than the bound goes, counted; what a destination takes it gets however old."""
    config = ForwardConfig("there", healthy.url, bound=Bound(age_s=1000.0))
    for number in range(3):
        lab.add(spans(f"s{number}"))
    Cursor(lab.state, "there").advance(0)
    moment_s = time.time() + 5000.0
    healthy.status = 503

    def meanwhile(seconds: float) -> None:
        if delivery.passed_over.total() == 2:
            healthy.status = 200

    clock = SimulatedClock(meanwhile)
    clock.now = moment_s
    delivery = DestinationDelivery(
        ForwardExporter(config),
        Cursor(lab.state, "there"),
        lab.stop,
        lab.draining,
        Requests(lab.settings.wal_dir, lab.state, Outgoing(lab.state, ForwardConfig("there", ""))),
        lambda: lab.last,
        Bound(1000.0, 1 << 30),
        clock,
    )
    delivery.start()
    until(lambda: delivery.cursor.segment == 3, "it has caught up")
    lab.stop.set()
    delivery.join(DEADLINE_S)
    assert healthy.names in (["s2"], [])  # the status turns between two tries
    assert delivery.status()["dropped_by_reason"] == {"too old": 3 - len(healthy.names)}


def test_a_slow_destination_keeps_within_its_bound_too(lab: Lab, healthy: Healthy) -> None:
    """The bytes are looked at before every segment, not only after a failure: a slow one fills the log as well."""
    Cursor(lab.state, "there").advance(0)
    for number in range(50):
        lab.add(spans(f"s{number}"))
    one = len(encode_segment([spans("s10")]))
    (delivery,) = lab.start(ForwardConfig("there", healthy.url, bound=Bound(size_bytes=10 * one))).deliveries
    until(lambda: delivery.cursor.segment == 50, "it has caught up")
    assert delivery.failed == 0
    assert healthy.names == [f"s{number}" for number in range(40, 50)]
    assert delivery.status()["dropped_by_reason"] == {"too much": 40}


@pytest.mark.parametrize(("asked_s", "failures"), [(0.0, 1), (0.0, 5), (0.0, 1000), (120.0, 1), (120.0, 1000)])
def test_pauses_grow_and_are_never_shorter_than_asked(asked_s: float, failures: int) -> None:
    """Doubling from 100 ms to 5 s with chance in it, and never before the moment that the destination named."""
    found = {back_off_s(failures, asked_s) for _ in range(200)}
    highest = min(5.0, 0.1 * 2 ** min(failures - 1, 30))
    if asked_s:
        assert found == {asked_s}
    else:
        assert highest / 2 <= min(found) < max(found) <= highest
        assert len(found) > 100


def test_waiting_looks_at_each_file_once(lab: Lab) -> None:
    """Sizes add up and go down again as segments come and are done with."""
    waiting = Waiting(Requests(lab.settings.wal_dir, lab.state, Outgoing(lab.state, ForwardConfig("there", ""))), 0)
    sizes = []
    for number in range(3):
        lab.add(spans("x" * 10 ** (number + 1)))
        sizes.append(sealed_segments(lab.settings.wal_dir)[-1].stat().st_size)
    waiting.look()
    assert waiting.size_bytes == sum(sizes)
    assert (waiting.first(3), waiting.first(0)) == (1, None)
    waiting.done()
    waiting.look()
    assert (waiting.first(3), waiting.size_bytes) == (2, sum(sizes[1:]))

"""The worker: sealed segments of the log become rows of the lake, in their order, each exactly once.

What keeps a replay exact: a segment's records never change, processors go back to their snapshot before it, and the
lake refuses a segment it has. So the worker may be killed at any moment. What keeps one bad request from stopping the
rest: `attempts` is written before a segment is begun; a segment that was begun before and not finished, or that
raised, is tried in a process of its own (`trial`), and the requests that fail there too become dead letters.

    python -m hubscope.collector.worker --settings-json JSON     (or @FILE)

Ends with 0 after SIGTERM, when what is sealed is in the lake (or `stop_grace_s` is over: the rest waits in the log),
and with 4 where the lake cannot be used at all.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import select
import signal
import stat
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from hubscope.collector import logs
from hubscope.collector.configuration.settings import CollectorSettings, from_json
from hubscope.collector.deaths import Deaths
from hubscope.collector.delivery import Delivery
from hubscope.collector.destinations import Destinations
from hubscope.collector.lake_delivery import LakeDelivery
from hubscope.collector.lake_queue import Handed, LakeQueue
from hubscope.collector.load import Load
from hubscope.collector.lock import hold
from hubscope.collector.log import dead_letter
from hubscope.collector.log.cursors import Cursor
from hubscope.collector.log.durable import write_durably
from hubscope.collector.log.wal import Following, Record, remove_segment, sealed_segments, segment_number
from hubscope.collector.otlp.decode import mend_payload
from hubscope.collector.private import keep_files_private
from hubscope.collector.scrape.kpi_page import KpiPage
from hubscope.collector.segments import batch_despite, batch_of, readable_records
from hubscope.collector.suspects import Suspects
from hubscope.collector.trial import sweep
from hubscope.collector.writer_identity import WriterIdentity, writer_id
from hubscope.errors import EXIT_UNREADABLE, HubscopeError, RetryableError, status_of
from hubscope.exporters import disk
from hubscope.exporters.lake import LakeExporter
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import chain
from hubscope.processors.rules_file import load

POLL_S: Final = 0.05
PUBLISH_S: Final = 0.5
KPI_LOOKS: Final = 4  # every 2 s: the largest page takes 40 ms, and nobody scrapes more often than once a second
ROOM_BYTES: Final = 64 << 10  # for the first of its small files; what it needs for rows the lake says
LOOK_FOR_ROOM_S: Final = 1.0
OLD_WORKER_S: Final = 10.0  # how long a worker that is ending may keep the state folder

_log = logging.getLogger("hubscope.worker")


class Worker:
    """One worker over one state folder. `run` returns when `drain` was set and nothing is left to do."""

    def __init__(self, settings: CollectorSettings) -> None:
        self.settings = settings
        self.state_dir = Path(settings.state_dir)
        self.drain = threading.Event()  # finish what is sealed, then end
        self.leave = threading.Event()  # end after the segment that is being worked on: another worker goes on
        self.stop = threading.Event()  # give up what cannot be had now
        identity = WriterIdentity(self.state_dir, settings.wal_dir)
        self.load = Load()
        self._identity, self._known_as = identity, identity.id
        self.lake = LakeExporter(
            settings.lake,
            identity.application,
            policy=settings.keep,
            is_opened_later=True,
            is_busy=self.load.is_high,
            claim=identity,
        )
        written = Cursor(self.state_dir, "lake")
        on_disk = Cursor(self.state_dir, "processed", is_exporter=False)
        self.processed = max(written.segment, on_disk.segment)
        self.batches = 0
        self.processor_failures: Counter[str] = Counter()  # segments of which a processor derived nothing
        self.kpi_page = KpiPage()
        self._chain = chain(
            load(settings.rules_path), self.state_dir, settings.processors, is_local=settings.has_only_local_senders
        )
        self._following = Following(settings.wal_dir)
        self._oldest = 0  # segments below it are deleted
        self._nothing_more = threading.Event()
        self._destinations = Destinations(
            settings, self._chain, identity.id, lambda: self.processed, self.stop, self._nothing_more
        )
        kept = self._destinations.kept
        sealed = [segment_number(path) for path in sealed_segments(settings.wal_dir)]
        self.queue = LakeQueue(kept, on_disk, written, sealed, settings.limits.log_size_bytes)
        self._deaths = Deaths(
            self.state_dir / "attempts.json", written.segment, self.queue.first_left, self.queue.on_disk
        )
        self._suspects = Suspects(settings, self._chain, self.stop, self._deaths)
        self.lake_delivery = LakeDelivery(
            self.lake, written, self.stop, self.drain, self.queue, kept, self._suspects, identity
        )

    @property
    def deliveries(self) -> list[Delivery]:
        return [self.lake_delivery, *self._destinations.deliveries]

    def run(self) -> None:
        """Work until drained or stopped. Raises what ended an exporter's thread."""
        for delivery in self.deliveries:
            delivery.start()
        while not self.stop.is_set():
            draining = self.drain.is_set()
            path = self._following.next(self.processed)
            if path is not None:
                try:
                    with self.load.working():
                        self._take(path)
                    self._remove_finished()
                except OSError as error:  # the state folder's disk is full or gone: nothing is lost, all can wait
                    _log.warning("segment %d waits: %s", segment_number(path), error)
                    if draining and error.errno == errno.ENOSPC:
                        self.stop.set()  # nothing can be drained; the log keeps it
                    self.stop.wait(1.0)
            self._raise_crashed()
            if self._identity.id != self._known_as and self._destinations.of_rows:
                self.leave.set()  # they know segments by the writer too: the next worker tells them
            if self.leave.is_set():
                break
            if path is None:
                self._remove_finished()
                if draining:
                    break
                self.drain.wait(POLL_S)
        self._finish()

    def status(self) -> dict[str, Any]:
        """What worker.json holds. Rows and batches are counted since this process started."""
        return {
            "pid": os.getpid(),
            "batches": self.batches,
            "rows": dict(self.lake.rows),
            "lake": self.lake.upkeep_status(),
            "dead_letters": dead_letter.count(self.state_dir),
            "processor_failures": dict(self.processor_failures),
            "processors": self._chain.counts(),
            "exporters": {d.exporter.name: d.status() for d in self.deliveries},
            "kpis": self.kpi_page.status(),
        }

    def _take(self, path: Path) -> None:
        segment = segment_number(path)
        deaths = self._deaths.begin(segment)
        records = readable_records(path, self.state_dir, segment)
        guilty = self._suspects.of(path, len(records), deaths)
        batch = self._batch(path, records, guilty)
        if batch is None:
            return  # stopped meanwhile
        self._suspects.set_aside(segment, records, guilty)
        item = Handed(segment, batch, len(records) - len(guilty), tuple(guilty))
        if self._destinations.deliveries:
            changed = self._changed_of(batch, records, guilty)
            item.kept_bytes = self._destinations.keep(batch, records, changed, guilty)
        self.kpi_page.note(batch)
        batch.forget_shared()
        if self._hand_over(item):
            self.processed = segment
            self.batches += 1

    def _batch(self, path: Path, records: list[Record], guilty: dict[int, str]) -> Batch | None:
        """The batch without the guilty records, whom it adds to; None where the worker is stopped meanwhile.

        Where a segment fails whose requests all pass their trial, the fault is not theirs: what arrived is decoded,
        and what a failing processor would have derived of it is missing, counted, and said.
        """
        segment = segment_number(path)
        tried = False
        while not self.stop.is_set():
            rest = [record for index, record in enumerate(records) if index not in guilty]
            try:
                if not tried:
                    return batch_of(segment, rest, self._chain)
                batch, failed = batch_despite(segment, rest, self._chain)
                for name, reason in failed:
                    self.processor_failures[name] += 1
                    _log.error("segment %d: the processor %s failed and derived nothing: %s", segment, name, reason)
                return batch
            except RetryableError as error:
                _log.warning("%s", error)
                self.stop.wait(error.retry_after_s)
            except Exception as error:  # noqa: BLE001 - a request must not stop the rest, whatever it makes fail
                reason = f"{type(error).__name__}: {error}"
                _log.warning("segment %d: %s", segment, reason)
                found = {} if tried else self._suspects.trial(path, len(records)) or {}
                if tried:  # it cannot even be decoded, though each request alone can
                    found = {index: reason for index in range(len(records)) if index not in guilty}
                tried = True
                guilty.update(found)
        return None

    def _changed_of(self, batch: Batch, records: list[Record], guilty: dict[int, str]) -> dict[int, bytes]:
        """Index of a record in the segment -> what is forwarded in its place; nothing for a dead letter that cannot be
        redacted."""
        places = [index for index in range(len(records)) if index not in guilty]
        changed = {places[index]: payload for index, payload in batch.changed.items()}
        for index in guilty:
            try:
                payload = mend_payload(records[index].signal, records[index].payload, self._chain.arriving)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it
                _log.warning("request %d is not forwarded: %s: %s", index, type(error).__name__, error)
                payload = b""
            if payload != records[index].payload:
                changed[index] = payload
        return changed

    def _hand_over(self, item: Handed) -> bool:
        """Whether the lake's queue has it; not where the worker is to end meanwhile. Raises OSError on a full disk."""
        while not self.stop.is_set():
            self._raise_crashed()
            try:
                if self.queue.hand_over(item, self.lake_delivery.is_away, 0.2):
                    self._deaths.kept(self.queue.on_disk)
                    return True
            except OSError as error:
                if self.drain.is_set() and error.errno == errno.ENOSPC:
                    raise
                _log.warning("segment %d waits for the lake, and for room to wait on disk: %s", item.segment, error)
                self.stop.wait(1.0)
            self._remove_finished()
            if self.leave.is_set():
                break  # the next worker decodes it again
        return False

    def _remove_finished(self) -> None:
        """Delete the segments that every exporter has."""
        written = self.lake_delivery.cursor.segment
        finished = self._destinations.finished(written)
        self._destinations.forget(written)
        self._deaths.done(written)
        self._suspects.forget_up_to(written)
        if self._oldest > finished:
            return
        if not self._oldest:
            first = next(iter(sealed_segments(self.settings.wal_dir)), None)
            self._oldest = finished + 1 if first is None else segment_number(first)
        for segment in range(self._oldest, finished + 1):
            remove_segment(self.settings.wal_dir / f"{segment:016d}.wal")
        self._oldest = max(self._oldest, finished + 1)

    def _raise_crashed(self) -> None:
        for delivery in self.deliveries:
            if delivery.crashed is not None:
                raise delivery.crashed

    def _finish(self) -> None:
        """Let the lake take what was handed over; a destination that is slow or down keeps its place in the log."""
        # For a reload nobody waits for a lake that is away: what it has to take stands in the log or on the disk.
        is_patient = self.drain.is_set() or not self.lake_delivery.is_away()
        deadline_s = time.monotonic() + (self.settings.stop_grace_s if is_patient else 0.0)
        self._nothing_more.set()
        self.queue.close()
        for delivery in self.deliveries:
            delivery.join(max(0.0, deadline_s - time.monotonic()))
        self.stop.set()
        for delivery in self.deliveries:
            delivery.join(1.0)
        self._raise_crashed()
        self._remove_finished()
        with contextlib.suppress(OSError):  # a full disk: what is begun is tried in a process of its own next time
            self._deaths.end()


def _await_room(state_dir: Path) -> None:
    """Return when a small file can be written: on a full disk a worker can do nothing, and starting one takes 2 s."""
    is_said = False
    while True:
        try:
            writer_id(state_dir)
            write_durably(state_dir / "room", bytes(ROOM_BYTES))
            (state_dir / "room").unlink()
            return
        except OSError as error:
            if not disk.is_full(error, str(state_dir)):
                raise
            if not is_said:
                _log.warning("%s: %s: the worker waits for room", state_dir, error.strerror)
                is_said = True
            for leftover in ("room.new", "writer-id.new"):
                (state_dir / leftover).unlink(missing_ok=True)
        if sys.platform == "win32" or not _stdin_is_a_pipe():
            time.sleep(LOOK_FOR_ROOM_S)
        elif select.select([0], [], [], LOOK_FOR_ROOM_S)[0]:
            raise RetryableError("the supervisor is gone", "nothing is lost, the log has it")


def main(settings: CollectorSettings) -> int:
    """Run the worker until SIGTERM, or until a pipe on its stdin ends with the supervisor. Returns the exit code."""
    state_dir = Path(settings.state_dir)
    with hold(state_dir / "worker.lock", OLD_WORKER_S):
        sweep(state_dir)
        _await_room(state_dir)
        worker = Worker(settings)
        signal.signal(signal.SIGTERM, lambda *_: worker.drain.set())
        if sys.platform != "win32":
            signal.signal(signal.SIGHUP, lambda *_: worker.leave.set())
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches the whole group; the supervisor ends us in its turn
        ended = threading.Event()
        publisher = threading.Thread(target=_publish, args=(worker, ended), name="publisher", daemon=True)
        publisher.start()
        if _stdin_is_a_pipe():
            threading.Thread(target=_watch_supervisor, args=(worker,), name="supervisor", daemon=True).start()
        try:
            worker.run()
        finally:
            ended.set()
            publisher.join(2.0)
            # A merge that is given up removes what it wrote; nobody waits for a store that does not answer.
            worker.lake.close(1.0 if worker.lake_delivery.is_away() else None)
    return 0


def _publish(worker: Worker, ended: threading.Event) -> None:
    path = worker.state_dir / "worker.json"
    fresh = path.with_suffix(".new")
    last, looks = False, 0
    while not last:
        last = ended.wait(PUBLISH_S)
        try:
            fresh.write_text(json.dumps(worker.status()), "utf-8")
            fresh.replace(path)
            looks += 1
            if last or looks % KPI_LOOKS == 0:
                worker.kpi_page.write(worker.state_dir)
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error)


def _stdin_is_a_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # closed
        return False


def _watch_supervisor(worker: Worker) -> None:
    """Finish when the pipe on stdin ends: the supervisor holds it open as long as it lives, also a killed one."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    if not worker.drain.is_set():
        _log.warning("the supervisor is gone: finishing")
        worker.drain.set()


def run(arguments: list[str] | None = None) -> int:
    """The command line. An error is a message on stderr and its exit code, a bug a traceback and 70."""
    parser = argparse.ArgumentParser(prog="hubscope.collector.worker")
    parser.add_argument("--settings-json", required=True)
    keep_files_private()
    logs.set_up("worker")
    try:
        settings = from_json(parser.parse_args(arguments).settings_json)
        logs.set_up("worker", settings)
        return main(settings)
    except HubscopeError as error:
        _log.error("%s", error)
        return status_of(error).exit_code
    except OSError as error:  # the state folder's disk is full, or gone
        print(f"worker: {error}; nothing is lost, the log has it", file=sys.stderr)
        return EXIT_UNREADABLE
    except Exception as error:  # noqa: BLE001 - the outermost boundary: a bug, told whole, for the supervisor to restart
        _log.exception("the worker ended on a bug; nothing is lost, the log has it")
        return status_of(error).exit_code


if __name__ == "__main__":
    sys.exit(run())

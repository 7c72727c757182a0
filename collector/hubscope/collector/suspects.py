"""Requests that the worker or the lake cannot take: found by trial and set aside, so that the rest goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.deaths import MAX_DEATHS, Deaths
from hubscope.collector.kept_rows import Kept
from hubscope.collector.log import dead_letter
from hubscope.collector.log.wal import Record
from hubscope.collector.outgoing import encoded_spans
from hubscope.collector.segments import arrived, readable_records
from hubscope.collector.trial import guilty_records
from hubscope.errors import RetryableError
from hubscope.lake_schema import ROLLUP, TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import Chain
from hubscope.processors.rollup import Rollup

_log = logging.getLogger("hubscope.worker")


class Suspects:
    """Of one state folder. The worker's thread and the lake's ask about different segments."""

    def __init__(self, settings: CollectorSettings, chain: Chain, stop: threading.Event, deaths: Deaths) -> None:
        self._settings = settings
        self._state_dir = Path(settings.state_dir)
        self._chain = chain
        self._stop = stop
        self._deaths = deaths
        self._aside: dict[int, set[int]] = {}  # segment -> records set aside while it waits for the lake

    def know(self, segment: int, indexes: Collection[int]) -> None:
        """These records of the segment are dead letters already."""
        if indexes:
            self._aside.setdefault(segment, set()).update(indexes)

    def forget_up_to(self, segment: int) -> None:
        """The lake has these segments."""
        for number in [number for number in list(self._aside) if number <= segment]:
            del self._aside[number]

    def of(self, path: Path, count: int, deaths: int) -> dict[int, str]:
        """Index -> reason of the records to set aside in a segment on which the worker died so often."""
        if deaths >= MAX_DEATHS:
            self._deaths.forgive()  # those of other segments were most likely this one's
            return dict.fromkeys(range(count), f"the worker died {deaths} times in its segment")
        return self.trial(path, count) or {} if deaths else {}

    def trial(self, path: Path, count: int) -> dict[int, str] | None:
        """Index -> reason of the records that fail or kill in a process of their own; None: stopped."""
        while not self._stop.is_set():
            try:
                return guilty_records(
                    path, count, self._state_dir, self._settings.rules_path, self._settings.processors
                )
            except RetryableError as error:
                _log.warning("%s", error)
                self._stop.wait(error.retry_after_s)
        return None

    def set_aside(self, segment: int, records: Sequence[Record], found: Mapping[int, str]) -> None:
        """Make dead letters of them. Raises OSError."""
        for index, reason in found.items():
            dead_letter.set_aside(self._state_dir, segment, index, records[index], reason)
            _log.error("request %d of segment %d is now a dead letter: %s", index, segment, reason)
        self.know(segment, found)

    def without_guilty(self, batch: Batch, reason: str) -> Batch | None:
        """The batch without the requests whose rows the lake refuses. All, the second time. None: stopped."""
        records, aside = self._records(batch.segment), self._aside.get(batch.segment, set())
        found = self.trial(self._path(batch.segment), len(records))
        if found is None:
            return None
        found = {index: text for index, text in found.items() if index not in aside}
        if not found:
            found = {index: reason for index in range(len(records)) if index not in aside}
        return self._without(batch, records, found, reason)

    def without_killers(self, batch: Batch) -> Batch | None:
        """A batch of a former life without the requests that killed the worker in the lake. None: stopped."""
        deaths = self._deaths.count(batch.segment)
        path = self._path(batch.segment)
        if not deaths or not path.exists():  # where somebody deleted the log there is nothing to try
            return batch
        records, aside = self._records(batch.segment), self._aside.get(batch.segment, set())
        found = self.of(path, len(records), deaths)
        if self._stop.is_set():
            return None
        found = {index: text for index, text in found.items() if index not in aside}
        if not found:
            return batch
        rest = self._without(batch, records, found, next(iter(found.values())))
        if deaths == 1 or not rest.derived:
            return rest
        _log.error("segment %d: what was derived of it is left out, for it may be what kills the worker", batch.segment)
        return replace(rest, derived={})  # they were left out the last time too, and it died all the same

    def from_the_log(self, segment: int, damaged: Path, reason: str) -> Kept | None:
        """What arrived in a processed segment, where the rows kept of it cannot be read. None: stopped.

        What was derived is missing. Spans that sampling let go with it are too: those that arrived come with others.
        """
        if damaged.exists():
            dead_letter.set_segment_aside(self._state_dir, segment, damaged, reason)
        path = self._path(segment)
        if not path.exists():
            _log.error("%s; nor is its segment in the log any more: what was in it is lost", reason)
            return Kept(Batch(segment, 0))
        records = self._records(segment)
        self.know(segment, dead_letter.of_segment(self._state_dir, segment))
        aside = self._aside.get(segment, set())
        lost = "what was derived of it" + (
            ", and spans that sampling let go with it," if self._chain.is_sampling else ""
        )
        _log.error("%s; segment %d is decoded again, and %s is missing", reason, segment, lost)
        for is_last in (False, True):
            rest = [record for index, record in enumerate(records) if index not in aside]
            try:
                batch = arrived(segment, rest, self._chain)
                if self._chain.is_sampling:
                    batch = replace(batch, tables={n: rows for n, rows in batch.tables.items() if n != TRACES})
                return Kept(batch, len(rest), frozenset(aside))
            except Exception as error:  # noqa: BLE001 - a request must not stop the rest, whatever it makes fail
                text = f"{type(error).__name__}: {error}"
                found = self.trial(path, len(records))
                if found is None:
                    return None
                if is_last or not found:
                    found = dict.fromkeys(range(len(records)), text)
                self.set_aside(segment, records, {i: why for i, why in found.items() if i not in aside})
                aside = self._aside[segment]
        return Kept(Batch(segment, 0))

    def _without(self, batch: Batch, records: list[Record], found: Mapping[int, str], reason: str) -> Batch:
        self.set_aside(batch.segment, records, found)
        aside = self._aside.get(batch.segment, set())
        rest = [record for index, record in enumerate(records) if index not in aside]
        tables = arrived(batch.segment, rest, self._chain).tables
        derived = batch.derived
        if ROLLUP in derived:  # made of one segment's rows alone, so it can be made again without these
            others = {name: rows for name, rows in derived.items() if name != ROLLUP}
            derived = Rollup()(Batch(batch.segment, batch.received_unix_nano, tables, others)).derived
        if self._chain.is_sampling:  # its spans are of many segments: they stay, and the last time are set aside too
            spans = batch.tables.get(TRACES)
            tables = {name: rows for name, rows in tables.items() if name != TRACES}
            if spans is not None and rest:
                tables[TRACES] = spans
            for index, record in enumerate(encoded_spans(batch) if not rest else (), start=len(records)):
                dead_letter.set_aside(self._state_dir, batch.segment, index, record, reason)
        return replace(batch, tables=tables, derived=derived if rest else {})

    def _records(self, segment: int) -> list[Record]:
        return readable_records(self._path(segment), self._state_dir, segment)

    def _path(self, segment: int) -> Path:
        return self._settings.wal_dir / f"{segment:016d}.wal"

"""From a sealed segment to a batch: read, decode, run the processors. What the worker does, and what a trial tries."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from hubscope.collector.log.dead_letter import set_segment_aside
from hubscope.collector.log.durable import write_durably
from hubscope.collector.log.wal import DamagedSegmentError, Record, encode_segment, read_segment
from hubscope.collector.otlp.decode import decode_arriving
from hubscope.errors import LakeError, RetryableError
from hubscope.processors.batch import Batch
from hubscope.processors.pipeline import Chain

_log = logging.getLogger("hubscope.worker")


def readable_records(path: Path, state_dir: Path, segment: int) -> list[Record]:
    """The records of a segment; where its bytes are damaged, those before the damage, and the segment is set aside."""
    records: list[Record] = []
    try:
        for record in read_segment(path):
            records.append(record)
    except DamagedSegmentError as error:
        set_segment_aside(state_dir, segment, path, str(error))
        _log.error("segment %d is damaged; %d requests of it are read: %s", segment, len(records), error.message)
    return records


def arrived(segment: int, records: Sequence[Record], chain: Chain) -> Batch:
    """The rows of the records, as the processors of what arrives leave them. Raises what the decoder and they raise."""
    received_unix_nano = records[0].received_unix_nano if records else 0
    decoded = decode_arriving(records, chain.arriving, chain.added)
    last_unix_nano = max((record.received_unix_nano for record in records), default=0)
    return Batch(
        segment, received_unix_nano, decoded.tables, last_received_unix_nano=last_unix_nano, changed=decoded.changed
    )


def batch_of(segment: int, records: Sequence[Record], chain: Chain) -> Batch:
    """The rows of the records, through the processors in their order. Raises what the decoder and they raise."""
    batch = arrived(segment, records, chain)
    for processor in chain.batches:
        batch = processor(batch)
    return batch


def batch_despite(segment: int, records: Sequence[Record], chain: Chain) -> tuple[Batch, list[tuple[str, str]]]:
    """`batch_of` without what fails: the batch, and (name, reason) of each processor that raised.

    Raises what the decoder and the processors of what arrives raise (what cannot be redacted is not stored), and
    RetryableError.
    """
    batch = arrived(segment, records, chain)
    failed: list[tuple[str, str]] = []
    for processor in chain.batches:
        try:
            batch = processor(batch)
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - what was to be derived must not stop what arrived
            failed.append((getattr(processor, "name", repr(processor)), f"{type(error).__name__}: {error}"))
    return batch, failed


class ChangedLog:
    """The requests of each segment that redaction or a limit changed, for forwarders: what arrived stays in the log.

    `changed/{segment}.wal` has the log's own format, with the request's index where the time of its receipt stands.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "changed"

    def keep(self, segment: int, records: Sequence[Record], changed: Mapping[int, bytes]) -> None:
        """Keep what became of records of a segment, empty for one that is not to be sent. None are kept as no file."""
        path = self._directory / f"{segment:016d}.wal"
        if changed:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(path, encode_segment([Record(records[i].signal, changed[i], i) for i in sorted(changed)]))
        elif path.exists():
            path.unlink()  # of a past that is now redone

    def applied(self, segment: int, records: Sequence[Record]) -> list[Record]:
        """The records as they may leave this machine. Raises LakeError where that cannot be told any more."""
        path = self._directory / f"{segment:016d}.wal"
        changed = {r.received_unix_nano: r.payload for r in read_segment(path)} if path.exists() else {}
        return [
            record._replace(payload=changed.get(index, record.payload))
            for index, record in enumerate(records)
            if changed.get(index, record.payload)
        ]

    def forget_up_to(self, segment: int) -> None:
        """Remove what every forwarder has."""
        if self._directory.is_dir():
            for path in self._directory.glob("*.wal"):
                if int(path.stem) <= segment:
                    path.unlink(missing_ok=True)


class DerivedLog:
    """What was derived of each segment, as OTLP records beside the log, for forwarders that are behind the lake.

    `derived/{segment}.wal` has the log's own format. It stands before the lake has the segment, and a replay makes the
    same one, so a forwarder never needs the processors.
    """

    _folder = "derived"

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / self._folder

    def keep(self, segment: int, records: Sequence[Record]) -> None:
        """Keep the derived records of a segment; none are kept as no file."""
        if records:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path(segment), encode_segment(records))

    def records(self, segment: int) -> list[Record]:
        """The derived records of a segment, which may be none."""
        path = self._path(segment)
        if not path.exists():
            return []
        try:
            return list(read_segment(path))
        except LakeError:
            return []  # the rows stand in the lake; a damaged copy is not worth stopping the forwarding for

    def forget_up_to(self, segment: int) -> None:
        """Remove what every forwarder has."""
        if self._directory.is_dir():
            for path in self._directory.glob("*.wal"):
                if int(path.stem) <= segment:
                    path.unlink(missing_ok=True)

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:016d}.wal"


class SampledLog(DerivedLog):
    """The same for the spans that sampling let go with each segment, for destinations that take only those."""

    _folder = "sampled"

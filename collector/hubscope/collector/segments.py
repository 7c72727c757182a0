"""From a sealed segment to a batch: read, decode, run the processors. What the worker does, and what a trial tries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hubscope.collector.log.dead_letter import set_segment_aside
from hubscope.collector.log.durable import write_durably
from hubscope.collector.log.wal import DamagedSegmentError, Record, encode, read_segment
from hubscope.collector.otlp.decode import decode
from hubscope.errors import LakeError, RetryableError
from hubscope.processors.batch import Batch, Processor


def readable_records(path: Path, state_dir: Path, segment: int) -> list[Record]:
    """The records of a segment; where its bytes are damaged, those before the damage, and the segment is set aside."""
    records: list[Record] = []
    try:
        for record in read_segment(path):
            records.append(record)
    except DamagedSegmentError as error:
        set_segment_aside(state_dir, segment, path, str(error))
    return records


def batch_of(segment: int, records: Sequence[Record], processors: Sequence[Processor]) -> Batch:
    """The rows of the records, through the processors in their order. Raises what the decoder and they raise."""
    received_unix_nano = records[0].received_unix_nano if records else 0
    batch = Batch(segment, received_unix_nano, decode(records))
    for processor in processors:
        batch = processor(batch)
    return batch


def batch_despite(
    segment: int, records: Sequence[Record], processors: Sequence[Processor]
) -> tuple[Batch, list[tuple[str, str]]]:
    """`batch_of` without what fails: the batch, and (name, reason) of each processor that raised.

    Raises what the decoder raises, and RetryableError.
    """
    batch = Batch(segment, records[0].received_unix_nano if records else 0, decode(records))
    failed: list[tuple[str, str]] = []
    for processor in processors:
        try:
            batch = processor(batch)
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - what was to be derived must not stop what arrived
            failed.append((getattr(processor, "name", repr(processor)), f"{type(error).__name__}: {error}"))
    return batch, failed


class DerivedLog:
    """What was derived of each segment, as OTLP records beside the log, for forwarders that are behind the lake.

    `derived/{segment}.wal` has the log's own format. It stands before the lake has the segment, and a replay makes the
    same one, so a forwarder never needs the processors.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "derived"

    def keep(self, segment: int, records: Sequence[Record]) -> None:
        """Keep the derived records of a segment; none are kept as no file."""
        if records:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._path(segment), b"".join(encode(record) for record in records))

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

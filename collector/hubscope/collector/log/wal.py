"""The write-ahead log: what was acknowledged is in here until every exporter has it.

A log is a folder of numbered segments. `%016d.open` is being written; sealed, it is renamed to `%016d.wal` and never
changes again. One sealed segment is one batch of the worker and one transaction of the lake, so a replay after a crash
makes the same rows. Numbers start at 1, grow by 1 and are never reused: the next segment's `.open` file is made before
the last one is sealed, so the folder always holds the highest number, also when every sealed segment is gone.

A record is a 22-byte header and the payload, an OTLP Export…ServiceRequest in protobuf, decompressed:

    magic "HSW2" | length u32 | crc32 u32 | signal u8 | flags u8 | received_unix_nano u64      (little-endian)

The checksum covers signal, flags, received time and payload. `flags` is 0; a reader ignores it.

A segment ends with a record of signal 0, its end mark: how many records and bytes stand before it, and a checksum over
their headers. So a sealed segment that was cut anywhere, also between two records or to nothing, is known to be
damaged. Each append writes the mark behind its records and the next one writes over it, so that sealing takes no write,
no sync and no room on a full disk. Version 1 of the log ("HSW1") had no marks; it is read as it is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from zlib import crc32

from hubscope.collector.log.durable import sync_directory, write_durably
from hubscope.errors import LakeError

MAGIC: Final = b"HSW2"
OLD_MAGIC: Final = b"HSW1"  # without end marks
HEADER: Final = struct.Struct("<4sIIBBQ")
_CHECKED: Final = struct.Struct("<BBQ")  # the header's part that the checksum covers
_END: Final = struct.Struct("<QII")  # bytes, records, checksum of their headers
_END_SIGNAL: Final = 0
END_SIZE_BYTES: Final = HEADER.size + _END.size
SEAL_AGE_S: Final = (
    0.5  # queryable within 2 s of the acknowledgement: half a second here leaves 1.5 s to decode and write
)
SEAL_SIZE_BYTES: Final = 16 * 1024 * 1024  # bounds the worker's memory: decoded, 16 MiB of spans is about 150 MiB

LOOK_FOR_GAPS_S: Final = 1.0
SUFFIX: Final = ".wal"
# The first number that each opening of the log gives, and a number of that opening's own, until the worker has compared
# them with the lake: a line each, the last opening's last.
FIRST: Final = "first"
PREVIOUS: Final = "previous"  # the segment sealed last, under a second name

_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Signal(IntEnum):
    """What a payload is: ExportTraceServiceRequest, ExportMetricsServiceRequest or ExportLogsServiceRequest."""

    TRACES = 1
    METRICS = 2
    LOGS = 3


class Record(NamedTuple):
    """One request as it was acknowledged. `payload` is OTLP protobuf, never compressed."""

    signal: Signal
    payload: bytes
    received_unix_nano: int


class _End(NamedTuple):
    """What stands in a segment so far, as its end mark tells it. The headers hold the checksums of the payloads."""

    size_bytes: int = 0
    records: int = 0
    headers_crc32: int = 0

    def after(self, encoded: Sequence[bytes]) -> _End:
        """The same behind these records too. 0.3 us a record."""
        size_bytes, records, headers_crc32 = self
        for one in encoded:
            size_bytes += len(one)
            headers_crc32 = crc32(one[: HEADER.size], headers_crc32)
        return _End(size_bytes, records + len(encoded), headers_crc32)

    def mark(self) -> bytes:
        """As it is written; nothing for an empty segment, which only keeps its number."""
        return _framed(_END_SIGNAL, _END.pack(*self), 0) if self.records else b""

    @property
    def marked_size_bytes(self) -> int:
        """The segment's size with the mark."""
        return self.size_bytes + END_SIZE_BYTES if self.records else 0


class DamagedSegmentError(LakeError):
    """A sealed segment cannot be read from `offset` on: the disk changed what was written."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(
            f"{path}: damaged at byte {offset}: {reason}",
            "the records before it were read; the rest of this segment is lost. Check the disk.",
        )
        self.path = path
        self.offset = offset


class Recovery(NamedTuple):
    """What a writer found when it opened a log.

    `last_records` are in the log, but a killed writer may not have answered for them: their senders may repeat them.
    """

    segments: int
    torn_bytes: int
    last_records: tuple[Record, ...]


class SegmentFile(Protocol):
    """What the writer needs of a file. Tests pass one that fails as a full disk does."""

    def write(self, data: bytes, offset: int) -> None: ...
    def sync(self) -> None: ...
    def truncate(self, size_bytes: int) -> None: ...
    def close(self) -> None: ...


class _OsFile:
    """A segment on disk, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)

    def write(self, data: bytes, offset: int) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)
        view = memoryview(data)
        while view:  # a nearly full disk takes a part, then fails
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        _fdatasync(self._fd)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    def close(self) -> None:
        os.close(self._fd)


def encode(record: Record) -> bytes:
    """One record as it stands in a segment."""
    return _framed(record.signal, record.payload, record.received_unix_nano)


def encode_segment(records: Sequence[Record]) -> bytes:
    """A whole sealed segment: the records and its end mark."""
    encoded = [encode(record) for record in records]
    return b"".join([*encoded, _End().after(encoded).mark()])


def segment_number(path: Path) -> int:
    """The number of a segment, sealed or open."""
    return int(path.stem)


def sealed_segments(directory: Path) -> list[Path]:
    """Every sealed segment, oldest first. Empty where there is no log yet."""
    return _listed(directory, SUFFIX)


class Following:
    """The sealed segments, or other files of one a segment, after a number, found without listing the folder each time.

    With a destination down for three hours the folder holds 20,000 segments, and listing them takes 90 ms. Numbers
    grow by 1, so the next name is known; a gap, which a repaired log may have, is found by a look once a second.
    """

    def __init__(self, directory: Path, suffix: str = SUFFIX) -> None:
        self._directory = directory
        self._suffix = suffix
        self._list_again_s = 0.0

    def next(self, after: int) -> Path | None:
        """The first sealed segment above `after`, or None where there is none yet."""
        path = self._directory / f"{after + 1:016d}{self._suffix}"
        if path.exists():
            return path
        if time.monotonic() < self._list_again_s:
            return None
        self._list_again_s = time.monotonic() + LOOK_FOR_GAPS_S
        listed = _listed(self._directory, self._suffix)
        return next((found for found in listed if segment_number(found) > after), None)


def open_segments(directory: Path) -> list[Path]:
    """Segments being written, or left by a collector that was killed. One, or two in the middle of sealing."""
    return _listed(directory, ".open")


def log_size_bytes(directory: Path) -> int:
    """Bytes of all segments; a segment that vanishes meanwhile counts as nothing."""
    size_bytes = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            if entry.name not in (PREVIOUS, FIRST):  # a second name of a segment, not a second copy
                with contextlib.suppress(FileNotFoundError):
                    size_bytes += entry.stat().st_size
    return size_bytes


def read_segment(path: Path) -> Iterator[Record]:
    """The records of a sealed segment in the order of their acknowledgement.

    Raises DamagedSegmentError at the first record whose checksum is wrong, or where the end is not the one that was
    sealed, after all the good ones before it, and LakeError for a segment of a newer version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LakeError(f"{path}: {error.strerror}", "is the disk there, and the folder yours?") from error
    end = _End()
    while end.size_bytes < len(data):
        found = _record_at(data, end.size_bytes, path)
        if isinstance(found, str):
            raise DamagedSegmentError(path, end.size_bytes, found)
        if isinstance(found, _End):
            if found != end:
                raise DamagedSegmentError(
                    path,
                    end.size_bytes,
                    f"{found.records} records ({found.size_bytes} B) were sealed; {end.records} ({end.size_bytes} B)"
                    " stand here, or others",
                )
            if len(data) > end.marked_size_bytes:
                raise DamagedSegmentError(path, end.marked_size_bytes, "something stands behind its end")
            return
        yield found
        end = _behind(end, data, found)
    if not data.startswith(OLD_MAGIC):  # an old one has no mark, and none is sealed while it is empty
        raise DamagedSegmentError(path, len(data), "its end was cut off, and what stood before it may be missing")


def remove_segment(path: Path) -> None:
    """Delete a sealed segment that every exporter has. Done twice is done."""
    path.unlink(missing_ok=True)


class SegmentWriter:
    """The one writer of a log. Not thread-safe: one thread at a time calls it.

    `at_least` is the lowest number the next segment may have: above every exporter's cursor, so that a log folder that
    was deleted by hand does not give a number that the lake has already.
    """

    def __init__(
        self,
        directory: Path,
        *,
        at_least: int = 1,
        seal_age_s: float = SEAL_AGE_S,
        seal_size_bytes: int = SEAL_SIZE_BYTES,
        open_file: Callable[[Path], SegmentFile] = _OsFile,
        clock: Callable[[], float] = time.monotonic,
        is_opened_later: bool = False,
    ) -> None:
        """`is_opened_later`: the caller calls `open`, as often as it takes until there is room on the disk for it."""
        self.directory = directory
        self.is_open = False
        self.recovery = Recovery(0, 0, ())
        self.sealed = 0  # segments sealed by this writer
        self.last_sealed_unix_nano = 0
        self.seal_age_s = seal_age_s
        self.seal_size_bytes = seal_size_bytes
        self._open_file = open_file
        self._clock = clock
        self._file: SegmentFile | None = None
        self._end = _End()  # of the open segment, all of it on disk
        self._is_marked = True  # the end mark stands behind it; not after a failed write
        self._first_append_s = 0.0
        self._number = at_least
        if not is_opened_later:
            self.open()

    def open(self) -> None:
        """Seal what a killed writer left and begin a segment. Raises OSError; then it can be called again."""
        directory = self.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _recover(directory)
        self._number = max([self._number, *(segment_number(p) + 1 for p in sealed_segments(directory)[-1:])])
        left = open_segments(directory)  # all empty after the recovery: they only keep the number
        self._number = max([self._number, *(segment_number(path) for path in left)])
        self._note_first()
        self._start()
        for path in left:
            if path != self._path():
                path.unlink()
        self.recovery = found
        self.is_open = True

    def _note_first(self) -> None:
        path = self.directory / FIRST
        before = path.read_bytes() if path.exists() else b""
        write_durably(path, before + f"{self._number} {secrets.randbits(62) | 1}\n".encode())
        path.chmod(0o600)

    @property
    def segment(self) -> int:
        """The number of the segment that the next record goes into."""
        return self._number

    def append(self, records: Sequence[Record]) -> None:
        """Write the records and make them durable: when this returns, they survive the machine's loss of power.

        Raises OSError (a full or broken disk); then none of the records is in the log, and a later call may succeed.
        """
        if not records:
            return
        file = self._file or self._start()
        encoded = [encode(record) for record in records]
        end = self._end.after(encoded)
        self._write(file, b"".join([*encoded, end.mark()]))
        if not self._end.records:
            self._first_append_s = self._clock()
        self._end = end

    def due(self) -> bool:
        """Whether the open segment is old or large enough to be sealed."""
        if not self._end.records:
            return False
        return self._end.size_bytes >= self.seal_size_bytes or self._clock() - self._first_append_s >= self.seal_age_s

    def seal(self) -> int | None:
        """Hand the open segment to the worker. Returns its number, or None when it was empty. Raises OSError."""
        if not self._end.records:
            return None
        if not self._is_marked:
            self._write(self._file or self._start(), self._end.mark())  # over what the failed write left: needs no room
        sealed, path = self._number, self._path()
        self._let_go()
        end, self._end, self._number = self._end, _End(), sealed + 1
        with contextlib.suppress(
            OSError
        ):  # a full disk: the worker frees it, and the cursors keep the number meanwhile
            self._start()
        try:
            path.rename(path.with_suffix(".wal"))
        except OSError:
            self._let_go()
            self._end, self._number = end, sealed
            raise
        self._keep_for_recovery(path.with_suffix(".wal"))
        self.sealed += 1
        self.last_sealed_unix_nano = time.time_ns()
        return sealed

    def close(self) -> None:
        """Seal what is there and let go of the log. Everything was acknowledged, so nothing is kept for a recovery."""
        self.seal()
        self._let_go()
        (self.directory / PREVIOUS).unlink(missing_ok=True)

    def _path(self) -> Path:
        return self.directory / f"{self._number:016d}.open"

    def _start(self) -> SegmentFile:
        """Open the current segment, without what a failed write may have left behind its last durable byte."""
        file = self._open_file(self._path())
        try:
            file.truncate(self._end.marked_size_bytes)
            sync_directory(self.directory)
        except OSError:
            file.close()
            raise
        self._file = file
        return file

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep_for_recovery(self, sealed: Path) -> None:
        """A second name for the segment sealed last: the worker may delete the first before the answers are out."""
        previous = self.directory / PREVIOUS
        with contextlib.suppress(
            OSError
        ):  # a file system without links: after a crash a client's retry may count twice
            previous.unlink(missing_ok=True)
            os.link(sealed, previous)

    def _write(self, file: SegmentFile, data: bytes) -> None:
        """Write behind the last record, over the end mark there, and make it durable. Raises OSError."""
        try:
            file.write(data, self._end.size_bytes)
            file.sync()
        except OSError:
            self._give_up_tail(file)
            raise
        self._is_marked = True

    def _give_up_tail(self, file: SegmentFile) -> None:
        """After a failed write or sync: cut the file back to what is known to be on disk; go on in a new descriptor.

        The room of the end mark, which was written over, is kept for it. The kernel may drop dirty pages after a failed
        sync and report success on the next one, so the descriptor is not used again.
        """
        self._is_marked = not self._end.records
        with contextlib.suppress(OSError):
            file.truncate(self._end.marked_size_bytes)
        with contextlib.suppress(OSError):
            file.close()
        self._file = None


def _recover(directory: Path) -> Recovery:
    """Cut torn tails and seal what a killed writer left.

    A torn record was never acknowledged: the answer goes out after the sync.
    """
    segments = torn_bytes = 0
    last: tuple[Record, ...] = ()
    previous = directory / PREVIOUS
    if previous.exists():
        with contextlib.suppress(LakeError):
            last = tuple(read_segment(previous))
    opened = open_segments(directory)
    for path in opened:
        data = path.read_bytes()
        records: list[Record] = []
        end = _End()
        mark: _End | None = None
        while end.size_bytes < len(data):
            found = _record_at(data, end.size_bytes, path)
            if not isinstance(found, Record):
                mark = found if isinstance(found, _End) else None
                break
            records.append(found)
            end = _behind(end, data, found)
        known_bytes = end.marked_size_bytes if mark == end else end.size_bytes
        if data and (mark != end or known_bytes < len(data)):
            torn_bytes += len(data) - known_bytes
            _end_with_mark(path, end)
        if records:
            if path == opened[-1]:
                (directory / f"{segment_number(path) + 1:016d}.open").touch(mode=0o600)
            path.rename(path.with_suffix(".wal"))
            segments += 1
            last += tuple(records)
    previous.unlink(missing_ok=True)
    sync_directory(directory)
    return Recovery(segments, torn_bytes, last)


def _end_with_mark(path: Path, end: _End) -> None:
    """Cut an open segment to its whole records and write its end mark. Where a mark stood, that needs no room."""
    fd = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        os.lseek(fd, end.size_bytes, os.SEEK_SET)
        view = memoryview(end.mark())
        while view:
            view = view[os.write(fd, view) :]
        os.ftruncate(fd, end.marked_size_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)


def _framed(signal: int, payload: bytes, received_unix_nano: int) -> bytes:
    checksum = crc32(payload, crc32(_CHECKED.pack(signal, 0, received_unix_nano)))
    return HEADER.pack(MAGIC, len(payload), checksum, signal, 0, received_unix_nano) + payload


def _behind(end: _End, data: bytes, found: Record) -> _End:
    """Where the reader is behind a record of `data`."""
    size_bytes, records, headers_crc32 = end
    header = data[size_bytes : size_bytes + HEADER.size]
    return _End(size_bytes + HEADER.size + len(found.payload), records + 1, crc32(header, headers_crc32))


def _record_at(data: bytes, offset: int, path: Path) -> Record | _End | str:
    """The record at `offset`, or the end mark, or why there is neither."""
    if len(data) - offset < HEADER.size:
        return "a header was cut off"
    magic, length, checksum, signal, flags, received_unix_nano = HEADER.unpack_from(data, offset)
    if magic not in (MAGIC, OLD_MAGIC):
        if magic[:3] == MAGIC[:3] and chr(magic[3]).isdigit() and magic[3] > MAGIC[3]:
            raise LakeError(
                f"{path}: written by a newer hubscope (log version {chr(magic[3])}, this one reads {chr(MAGIC[3])})",
                "start the newer version once and stop it: it empties the log into the lake",
            )
        return "no record starts here"
    start = offset + HEADER.size
    payload = data[start : start + length]
    if len(payload) < length:
        return f"a record of {length} B was cut off after {len(payload)} B"
    if crc32(payload, crc32(_CHECKED.pack(signal, flags, received_unix_nano))) != checksum:
        return "the checksum is wrong"
    if signal == _END_SIGNAL and magic == MAGIC and length == _END.size:
        return _End(*_END.unpack(payload))
    try:
        return Record(Signal(signal), payload, received_unix_nano)
    except ValueError:
        return f"unknown signal {signal}"


def _listed(directory: Path, suffix: str) -> list[Path]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return [directory / f"{stem}{suffix}" for stem in sorted((s for s in stems if s.isdigit()), key=int)]

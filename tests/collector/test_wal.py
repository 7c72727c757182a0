"""The write-ahead log: framing, recovery, numbering, and what a full disk does to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.collector.log import wal
from hubscope.collector.log.wal import Record, SegmentWriter, Signal
from hubscope.errors import LakeError

RECORDS = st.lists(
    st.builds(Record, st.sampled_from(Signal), st.binary(max_size=300), st.integers(0, 2**64 - 1)),
    min_size=1,
    max_size=8,
)


def record(text: str) -> Record:
    return Record(Signal.TRACES, text.encode(), 1_700_000_000_000_000_000)


def payloads(directory: Path) -> list[str]:
    return [r.payload.decode() for path in wal.sealed_segments(directory) for r in wal.read_segment(path)]


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(RECORDS, min_size=1, max_size=5), seals=st.sets(st.integers(0, 4)))
def test_what_was_appended_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Record]], seals: set[int]
) -> None:
    """Whatever the records and wherever segments end, reading gives the records in order."""
    directory = tmp_path_factory.mktemp("wal")
    writer = SegmentWriter(directory)
    for index, group in enumerate(groups):
        writer.append(group)
        if index in seals:
            writer.seal()
    writer.close()
    read = [r for path in wal.sealed_segments(directory) for r in wal.read_segment(path)]
    assert read == [r for group in groups for r in group]


@settings(max_examples=80, deadline=None)
@given(records=RECORDS, data=st.data())
def test_a_torn_tail_loses_only_the_torn_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    """An open segment cut at any byte is recovered up to its last whole record, and the rest is counted."""
    directory = tmp_path_factory.mktemp("wal")
    SegmentWriter(directory).append(records)
    (opened,) = wal.open_segments(directory)
    whole_bytes = opened.stat().st_size
    cut = data.draw(st.integers(0, whole_bytes))
    os.truncate(opened, cut)
    whole, size = 0, 0
    while whole < len(records) and size + len(wal.encode(records[whole])) <= cut:
        size += len(wal.encode(records[whole]))
        whole += 1

    recovered = SegmentWriter(directory).recovery

    read = [r for path in wal.sealed_segments(directory) for r in wal.read_segment(path)]
    assert read == records[:whole]
    assert recovered.torn_bytes == (cut - size if cut < whole_bytes else 0)
    assert recovered.last_records == tuple(records[:whole])


@settings(max_examples=80, deadline=None)
@given(records=RECORDS, data=st.data())
def test_one_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    """A flipped byte anywhere in a sealed segment never gives another record: reading stops there and says where."""
    directory = tmp_path_factory.mktemp("wal")
    writer = SegmentWriter(directory)
    writer.append(records)
    writer.close()
    (sealed,) = wal.sealed_segments(directory)
    content = bytearray(sealed.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    sealed.write_bytes(content)
    read: list[Record] = []
    with pytest.raises(LakeError) as caught:  # noqa: PT012 - the good records before the damage are part of the answer
        for found in wal.read_segment(sealed):
            read.append(found)
    assert read == records[: len(read)]
    assert str(sealed) in caught.value.message


@settings(max_examples=80, deadline=None)
@given(records=RECORDS, is_recovered=st.booleans(), data=st.data())
def test_a_sealed_segment_cut_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], is_recovered: bool, data: st.DataObject
) -> None:
    """Cut to nothing, between two records or inside one, also one sealed by a recovery: its whole records, and why."""
    directory = tmp_path_factory.mktemp("wal")
    writer = SegmentWriter(directory)
    for record_ in records:
        writer.append([record_])
    if is_recovered:
        SegmentWriter(directory)
    else:
        writer.close()
    (sealed,) = wal.sealed_segments(directory)
    ends = [0]
    for record_ in records:
        ends.append(ends[-1] + len(wal.encode(record_)))
    cut = data.draw(st.sampled_from(ends) | st.integers(0, sealed.stat().st_size - 1))
    os.truncate(sealed, cut)
    read: list[Record] = []
    with pytest.raises(wal.DamagedSegmentError, match="cut off"):  # noqa: PT012 - the records before are the answer too
        for found in wal.read_segment(sealed):
            read.append(found)
    assert read == records[: sum(end <= cut for end in ends) - 1]


def test_a_record_taken_out_or_put_behind_is_noticed(tmp_path: Path) -> None:
    """Whole records with right checksums are not enough: their number, their bytes and they themselves must be those
    that were sealed."""
    parts = [wal.encode(record(text)) for text in ("a", "b", "c")]
    path, mark = tmp_path / f"{1:016d}.wal", wal.encode_segment([record(t) for t in "abc"])[sum(map(len, parts)) :]
    for content in (
        [parts[0], parts[2], mark],
        [parts[0], parts[2], parts[1], mark],
        [*parts, parts[0], mark],
        [*parts, mark, parts[0]],
        [*parts, mark, mark],
        [mark],
    ):
        path.write_bytes(b"".join(content))
        with pytest.raises(wal.DamagedSegmentError, match=r"were sealed|behind its end"):
            list(wal.read_segment(path))
    path.write_bytes(b"".join([*parts, mark]))
    assert [r.payload for r in wal.read_segment(path)] == [b"a", b"b", b"c"]


def old(text: str) -> bytes:
    """A record as version 1 wrote it."""
    return b"HSW1" + wal.encode(record(text))[4:]


def test_a_log_of_the_version_before_is_read(tmp_path: Path) -> None:
    """Segments without an end mark, sealed or left open by the version before, are read whole."""
    (tmp_path / f"{1:016d}.wal").write_bytes(old("a") + old("b"))
    (tmp_path / f"{2:016d}.open").write_bytes(old("c") + old("torn")[:-1])
    writer = SegmentWriter(tmp_path)
    writer.append([record("d")])
    writer.close()
    assert payloads(tmp_path) == ["a", "b", "c", "d"]
    assert writer.recovery.torn_bytes == len(old("torn")) - 1


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """Also when every sealed segment was deleted and the writer was killed, the next segment has a new number."""
    seen = []
    for _ in range(4):
        writer = SegmentWriter(tmp_path)
        for _ in range(2):
            writer.append([record("x")])
            number = writer.seal()
            assert number is not None
            seen.append(number)
        for path in wal.sealed_segments(tmp_path):
            wal.remove_segment(path)
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_deleted_log_starts_above_the_cursors(tmp_path: Path) -> None:
    """A log that starts anew goes on above the number it is told, which is the highest cursor."""
    writer = SegmentWriter(tmp_path / "wal", at_least=42)
    writer.append([record("x")])
    assert writer.seal() == 42
    assert writer.segment == 43


def test_a_kill_between_append_and_seal_loses_nothing(tmp_path: Path) -> None:
    """A writer that vanished leaves an open segment; the next one seals it before it starts its own."""
    SegmentWriter(tmp_path).append([record("a"), record("b")])
    writer = SegmentWriter(tmp_path)
    writer.append([record("c")])
    writer.close()
    assert payloads(tmp_path) == ["a", "b", "c"]
    assert writer.recovery.segments == 1


def test_a_kill_in_the_middle_of_sealing_loses_nothing(tmp_path: Path) -> None:
    """Two open segments, the state between making the next one and renaming the last, are both taken over."""
    SegmentWriter(tmp_path).append([record("a")])
    (tmp_path / f"{2:016d}.open").touch()
    writer = SegmentWriter(tmp_path)
    writer.append([record("b")])
    assert writer.seal() == 2
    assert payloads(tmp_path) == ["a", "b"]


def test_records_without_an_answer_are_known_after_a_kill(tmp_path: Path) -> None:
    """What was logged last stays known to the next writer, even if the worker has deleted the segment meanwhile."""
    writer = SegmentWriter(tmp_path)
    writer.append([record("sealed")])
    writer.seal()
    writer.append([record("open")])
    for path in wal.sealed_segments(tmp_path):
        wal.remove_segment(path)
    assert [r.payload for r in SegmentWriter(tmp_path).recovery.last_records] == [b"sealed", b"open"]


def test_after_a_clean_stop_nothing_is_in_doubt(tmp_path: Path) -> None:
    """A closed log has answered for everything, so the next writer holds nothing against a repeated request."""
    writer = SegmentWriter(tmp_path)
    writer.append([record("a")])
    writer.close()
    assert SegmentWriter(tmp_path).recovery == wal.Recovery(0, 0, ())


def test_a_segment_is_due_by_age_or_size(tmp_path: Path) -> None:
    """An empty segment is never due; a non-empty one is after its age, or at once when it is large enough."""
    now_s = 0.0
    writer = SegmentWriter(tmp_path, seal_age_s=0.5, seal_size_bytes=1000, clock=lambda: now_s)
    assert not writer.due()
    writer.append([record("a")])
    now_s = 0.4
    assert not writer.due()
    now_s = 0.5
    assert writer.due()
    writer.seal()
    assert not writer.due()
    writer.append([record("b" * 1000)])
    assert writer.due()


class FullDisk:
    """A segment file on a disk that takes `room_bytes` more and then is full."""

    room_bytes = 10**9

    def __init__(self, path: Path) -> None:
        self.real = wal._OsFile(path)
        self.size_bytes = path.stat().st_size

    def write(self, data: bytes, offset: int) -> None:
        over = max(0, self.size_bytes - offset)  # what is written over has its room already
        taken = data[: FullDisk.room_bytes + over]
        self.real.write(taken, offset)
        FullDisk.room_bytes -= max(0, len(taken) - over)
        self.size_bytes = max(self.size_bytes, offset + len(taken))
        if len(taken) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        self.real.sync()

    def truncate(self, size_bytes: int) -> None:
        self.real.truncate(size_bytes)
        self.size_bytes = size_bytes

    def close(self) -> None:
        self.real.close()


@pytest.mark.parametrize("room_bytes", [0, 1, 21, 22, 30])
def test_a_full_disk_takes_nothing_by_halves(tmp_path: Path, room_bytes: int) -> None:
    """An append that the disk refused leaves no trace, and the log goes on as soon as there is room."""
    FullDisk.room_bytes = 10**9
    writer = SegmentWriter(tmp_path, open_file=FullDisk)
    writer.append([record("kept")])
    FullDisk.room_bytes = room_bytes
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            writer.append([record("refused" * 10)])
    FullDisk.room_bytes = 10**9
    writer.append([record("after")])
    writer.close()
    assert payloads(tmp_path) == ["kept", "after"]


def test_a_full_disk_does_not_stop_the_sealing(tmp_path: Path) -> None:
    """What was taken is sealed, whole, while there is no room at all: the worker that is to make some needs it."""
    FullDisk.room_bytes = 10**9
    writer = SegmentWriter(tmp_path, open_file=FullDisk)
    writer.append([record("kept")])
    FullDisk.room_bytes = 0
    with pytest.raises(OSError, match="No space left"):
        writer.append([record("refused")])
    assert writer.seal() == 1
    assert payloads(tmp_path) == ["kept"]


def test_a_kill_after_a_refused_append_loses_nothing(tmp_path: Path) -> None:
    """The end mark that the refused append wrote over is written anew by the recovery."""
    FullDisk.room_bytes = 10**9
    writer = SegmentWriter(tmp_path, open_file=FullDisk)
    writer.append([record("kept")])
    FullDisk.room_bytes = 30
    with pytest.raises(OSError, match="No space left"):
        writer.append([record("refused" * 10)])
    SegmentWriter(tmp_path)
    assert payloads(tmp_path) == ["kept"]


def test_a_newer_log_is_refused_not_cut(tmp_path: Path) -> None:
    """A record of a later version is no torn tail: opening says so, and the file stays as it was."""
    newer = tmp_path / f"{1:016d}.open"
    content = b"HSW3" + wal.encode(record("x"))[4:]
    newer.write_bytes(content)
    with pytest.raises(LakeError, match="newer hubscope"):
        SegmentWriter(tmp_path)
    assert newer.read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_only_the_owner_can_read_the_log(tmp_path: Path) -> None:
    """Folder and segments are closed to everybody else."""
    SegmentWriter(tmp_path / "wal").append([record("x")])
    assert (tmp_path / "wal").stat().st_mode & 0o777 == 0o700
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in (tmp_path / "wal").iterdir())

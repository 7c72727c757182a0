"""The rows of each segment, kept for who takes rows until it has them: a destination, or the lake while it is away.

`rows/%016d.arrow` holds the segment as the processors left it: redacted, sampled, with what they derived. Decoding the
log again would need them once more, with the windows they had then. It stands before the segment counts as processed,
and a replay makes the same one. The log itself need not wait for a destination that takes rows.

The file is a row of Arrow IPC streams: first one without columns, whose schema's metadata holds what is known of the
segment and the checksum of what follows, then one a table, with its name and whether it was derived. Files of older
versions have no first stream, and their derived rows stand among those that arrived.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

import pyarrow as pa

from hubscope.collector.log.durable import write_durably
from hubscope.errors import LakeError
from hubscope.lake_schema import SCHEMAS
from hubscope.processors.batch import Batch

SUFFIX: Final = ".arrow"
_SEGMENT: Final = b"hubscope.segment"
_CHECKSUM: Final = b"hubscope.crc32"  # of what is known and of the tables
_TABLE: Final = b"hubscope.table"
_DERIVED: Final = b"hubscope.derived"
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="zstd")  # a third smaller than LZ4, in the same time


class Kept(NamedTuple):
    """What a file holds. `request_count` is without those that were set aside, whose indexes are `set_aside`."""

    batch: Batch
    request_count: int = 0
    set_aside: frozenset[int] = frozenset()
    has_checksum: bool = True  # not in a file of an older version


class KeptRows:
    """The files in `directory`. One thread keeps and forgets, any number read."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "rows"
        self._oldest = 0  # files below it are gone; listing 20,000 of them takes 90 ms

    def keep(self, batch: Batch, request_count: int = 0, set_aside: Collection[int] = ()) -> int:
        """Keep a segment durably; one without rows too, so that the numbers have no gaps. The file's size in bytes.

        Raises OSError.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        body = pa.BufferOutputStream()
        for tables, is_derived in ((batch.tables, b"0"), (batch.derived, b"1")):
            for name in SCHEMAS:
                if (table := tables.get(name)) is not None and table.num_rows:
                    metadata = {_TABLE: name.encode(), _DERIVED: is_derived}
                    with pa.ipc.new_stream(body, table.schema.with_metadata(metadata), options=_OPTIONS) as writer:
                        writer.write_table(table.replace_schema_metadata(metadata))
        content = body.getvalue()
        known = json.dumps(
            {
                "received_unix_nano": batch.received_unix_nano,
                "request_count": request_count,
                "set_aside": sorted(set_aside),
            }
        ).encode()
        checksum = str(crc32(content, crc32(known))).encode()
        head = pa.BufferOutputStream()
        with pa.ipc.new_stream(head, pa.schema([], {_SEGMENT: known, _CHECKSUM: checksum})):
            pass
        data = b"".join([head.getvalue(), content])
        write_durably(self.path(batch.segment), data)
        return len(data)

    def read(self, segment: int) -> Kept:
        """What is kept of a segment. Raises LakeError for a file that is gone or damaged."""
        path = self.path(segment)
        tables: dict[str, pa.Table] = {}
        derived: dict[str, pa.Table] = {}
        try:
            content = memoryview(path.read_bytes())
            known, start = _head(content)
            source = pa.BufferReader(content[start:])
            while source.tell() < source.size():
                with pa.ipc.open_stream(source) as reader:
                    table = reader.read_all()
                metadata = table.schema.metadata
                into = derived if metadata.get(_DERIVED) == b"1" else tables
                into[metadata[_TABLE].decode()] = table.replace_schema_metadata(None)
            batch = Batch(segment, known.get("received_unix_nano", 0), tables, derived)
            return Kept(batch, known.get("request_count", 0), frozenset(known.get("set_aside", ())), bool(known))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, AttributeError) as error:
            remedy = "the log has what arrived until the lake has it; check the disk"
            raise LakeError(f"{path}: cannot be read: {error}", remedy) from error

    def size_bytes(self, segment: int) -> int:
        """Of a segment's file; 0 where there is none."""
        try:
            return self.path(segment).stat().st_size
        except OSError:
            return 0

    def segments(self) -> list[int]:
        """All that are kept, in order."""
        return sorted(int(path.stem) for path in self.directory.glob(f"*{SUFFIX}") if path.stem.isdigit())

    def forget_up_to(self, segment: int) -> None:
        """Remove what every one has."""
        if not self._oldest:
            found = self.segments()
            self._oldest = found[0] if found else segment + 1
        for number in range(self._oldest, segment + 1):
            self.path(number).unlink(missing_ok=True)
        self._oldest = max(self._oldest, segment + 1)

    def path(self, segment: int) -> Path:
        return self.directory / f"{segment:016d}{SUFFIX}"


def _head(content: memoryview) -> tuple[dict[str, Any], int]:
    """What the first stream says of the segment, and where the tables begin; nothing and 0 in an old file.

    Raises ValueError for a wrong checksum.
    """
    if not content:
        return {}, 0
    source = pa.BufferReader(content)
    with pa.ipc.open_stream(source) as reader:
        metadata = reader.schema.metadata or {}
        if _SEGMENT not in metadata:
            return {}, 0
        reader.read_all()
    if crc32(content[source.tell() :], crc32(metadata[_SEGMENT])) != int(metadata[_CHECKSUM]):
        raise ValueError("the checksum is wrong")
    return json.loads(metadata[_SEGMENT]), source.tell()

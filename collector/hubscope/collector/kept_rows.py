"""The rows of each segment, kept for who takes rows until it has them: a destination, or the lake while it is away.

`rows/%016d.arrow` holds the segment as the processors left it: redacted, sampled, with what they derived. Decoding the
log again would need them once more, with the windows they had then. It stands before the segment counts as processed,
and a replay makes the same one. The log itself need not wait for a destination that takes rows.

The file is one zstd frame with its checksum (Arrow's files have none) around a row of Arrow IPC streams: first one
without columns, whose schema's metadata holds what is known of the segment, then one a table, with its name and whether
it was derived. Files of older versions are streams without the frame and the first of them, and their derived rows
stand among those that arrived.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import zstandard

from hubscope.collector.log.durable import write_durably
from hubscope.errors import LakeError
from hubscope.lake_schema import SCHEMAS
from hubscope.processors.batch import Batch

SUFFIX: Final = ".arrow"
_SEGMENT: Final = b"hubscope.segment"
_TABLE: Final = b"hubscope.table"
_DERIVED: Final = b"hubscope.derived"
# A frame around it all: of 8 spans, 7 tables' schemas, 8 KB where each column compressed by itself took 45, in a tenth
# of the time; of 70,000 spans the same 8.7 MB as there, 0.44 of the log.
_LEVEL: Final = 1


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
        known = {
            "received_unix_nano": batch.received_unix_nano,
            "request_count": request_count,
            "set_aside": sorted(set_aside),
        }
        streams = pa.BufferOutputStream()
        with pa.ipc.new_stream(streams, pa.schema([], {_SEGMENT: json.dumps(known).encode()})):
            pass
        for tables, is_derived in ((batch.tables, b"0"), (batch.derived, b"1")):
            for name in SCHEMAS:
                if (table := tables.get(name)) is not None and table.num_rows:
                    metadata = {_TABLE: name.encode(), _DERIVED: is_derived}
                    with pa.ipc.new_stream(streams, table.schema.with_metadata(metadata)) as writer:
                        writer.write_table(table.replace_schema_metadata(metadata))
        data = zstandard.ZstdCompressor(_LEVEL, write_checksum=True).compress(streams.getvalue())
        write_durably(self.path(batch.segment), data)
        return len(data)

    def read(self, segment: int) -> Kept:
        """What is kept of a segment. Raises LakeError for a file that is gone or damaged."""
        path = self.path(segment)
        tables: dict[str, pa.Table] = {}
        derived: dict[str, pa.Table] = {}
        known: dict[str, Any] = {}
        try:
            content = path.read_bytes()
            has_checksum = content.startswith(zstandard.FRAME_HEADER)
            if has_checksum:
                content = zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
            source = pa.BufferReader(content)
            while source.tell() < source.size():
                with pa.ipc.open_stream(source) as reader:
                    table = reader.read_all()
                metadata = table.schema.metadata
                if _SEGMENT in metadata:
                    known = json.loads(metadata[_SEGMENT])
                    continue
                into = derived if metadata.get(_DERIVED) == b"1" else tables
                into[metadata[_TABLE].decode()] = table.replace_schema_metadata(None)
            batch = Batch(segment, known.get("received_unix_nano", 0), tables, derived)
            return Kept(batch, known.get("request_count", 0), frozenset(known.get("set_aside", ())), has_checksum)
        except (OSError, pa.ArrowException, zstandard.ZstdError, KeyError, TypeError, ValueError) as error:
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

"""The rows of each segment, kept for a destination that takes rows until it has them.

`rows/%016d.arrow` holds the segment as the processors left it: redacted, sampled, with what they derived. Decoding the
log again would need them once more, with the windows they had then. It stands before the lake has the segment, and a
replay makes the same one. The log itself need not wait for such a destination.

The file is one Arrow IPC stream a table, one behind the other, the table's name in the schema's metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa

from hubscope.collector.log.durable import write_durably
from hubscope.errors import LakeError
from hubscope.lake_schema import SCHEMAS
from hubscope.processors.batch import Batch

SUFFIX: Final = ".arrow"
_TABLE: Final = b"hubscope.table"
_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="zstd")  # a third smaller than LZ4, in the same time


class KeptRows:
    """The files in `directory`. One thread keeps, any number read."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "rows"
        self._oldest = 0  # files below it are gone; listing 20,000 of them takes 90 ms

    def keep(self, batch: Batch) -> None:
        """Keep a segment durably; one without rows too, so that the numbers have no gaps. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sink = pa.BufferOutputStream()
        for name in SCHEMAS:
            tables = list(batch.rows(name))
            if tables:
                table = pa.concat_tables(tables)
                schema = table.schema.with_metadata({_TABLE: name.encode()})
                with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as writer:
                    writer.write_table(table.replace_schema_metadata(schema.metadata))
        write_durably(self._path(batch.segment), sink.getvalue().to_pybytes())

    def read(self, segment: int) -> Batch:
        """The segment's rows, all of them in `tables`. Raises LakeError for a file that is gone or damaged."""
        path = self._path(segment)
        tables: dict[str, pa.Table] = {}
        try:
            source = pa.BufferReader(path.read_bytes())
            while source.tell() < source.size():
                with pa.ipc.open_stream(source) as reader:
                    table = reader.read_all()
                name = table.schema.metadata[_TABLE].decode()
                tables[name] = table.replace_schema_metadata(None)
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            raise LakeError(f"{path}: cannot be read: {error}", "the lake has these rows; check the disk") from error
        return Batch(segment, 0, tables)

    def forget_up_to(self, segment: int) -> None:
        """Remove what every destination has."""
        if not self._oldest:
            found = sorted(int(path.stem) for path in self.directory.glob(f"*{SUFFIX}"))
            self._oldest = found[0] if found else segment + 1
        for number in range(self._oldest, segment + 1):
            self._path(number).unlink(missing_ok=True)
        self._oldest = max(self._oldest, segment + 1)

    def _path(self, segment: int) -> Path:
        return self.directory / f"{segment:016d}{SUFFIX}"

"""Which parts of a file go into the lake as one, and how a later import finds the same parts again.

A file is a row of units: requests, and what stands between them and cannot be taken. A chunk of them is known by two
hashes, of all the file's units before it and of all up to its end. They name a Delta transaction that is committed
with the chunk's rows: a table takes it once, and the file's name, length and compression do not matter.

A chunk ends after CHUNK_BYTES, which is always at the same place, or with the file, and where a file ended cannot be
seen in it any more once it has grown. So each commit holds a second transaction, whose name is the hash up to the
chunk's first unit and whose version is the chunk's number of units. A later import asks for it when it comes to that
unit, and cuts there too. All of it stands in the lake, in the very commits that it is about: no crash can part them,
and nothing beside the lake is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Final, NamedTuple

from deltalake import Transaction

from hubscope.collector.imports.import_formats import Found
from hubscope.exporters.lake import LakeExporter

CHUNK_BYTES: Final = 8 << 20  # one Delta commit; half of the collector's segments, for JSON takes memory beside it
_HEX_DIGITS: Final = 32  # 128 bits


class _Unit(NamedTuple):
    found: Found
    size_bytes: int  # as it stands in the file, decompressed
    upto: str  # hash of all the file's units up to it


class Chunk(NamedTuple):
    """Some units of a file, one after the other."""

    start: str  # hash of all units before it
    units: tuple[_Unit, ...]

    @property
    def found(self) -> Iterator[Found]:
        return (unit.found for unit in self.units)

    @property
    def application(self) -> str:
        """The name of its Delta transaction, whose version is 1."""
        return f"hubscope-import/{self.start}-{self.units[-1].upto}"

    def transactions(self, lake: LakeExporter) -> tuple[Transaction, Transaction]:
        """What to commit with its rows: the chunk, and how long it is."""
        number = next(n for n in count() if lake.versions(self._length(n)) <= {len(self.units)})
        return Transaction(self.application, 1), Transaction(self._length(number), len(self.units))

    def known_part(self, lake: LakeExporter) -> Chunk:
        """The longest of its beginnings that is a chunk the lake has something of; all of it where there is none."""
        lengths: set[int] = set()
        for number in count():
            found = lake.versions(self._length(number))
            if not found:
                break
            lengths |= found
        for length in sorted(lengths, reverse=True):
            part = Chunk(self.start, self.units[:length])
            if length <= len(self.units) and lake.versions(part.application):
                return part
        return self

    def _length(self, number: int) -> str:
        """Different chunks may begin with the same unit: their lengths are numbered."""
        return f"hubscope-import-length/{self.units[0].upto}/{number}"


def chunks(found: Iterable[Found], lake: LakeExporter) -> Iterator[Chunk]:
    """All units of a file in chunks. What is not all there yet, such as a half-written last line, is no unit."""
    start = _hex(hashlib.sha256())
    ahead: tuple[_Unit, ...] = ()
    reading = _units(found)
    while ahead := (*ahead, *_more(reading, sum(unit.size_bytes for unit in ahead))):
        chunk = Chunk(start, ahead).known_part(lake)
        yield chunk
        start, ahead = chunk.units[-1].upto, ahead[len(chunk.units) :]


def _more(reading: Iterator[_Unit], size_bytes: int) -> Iterator[_Unit]:
    """As many units as a chunk still takes that has so many bytes."""
    while size_bytes < CHUNK_BYTES:
        unit = next(reading, None)
        if unit is None:
            return
        yield unit
        size_bytes += unit.size_bytes


def _units(found: Iterable[Found]) -> Iterator[_Unit]:
    running = hashlib.sha256()
    for one in found:
        size_bytes = len(one.source)
        if size_bytes:
            running.update(size_bytes.to_bytes(8, "big"))
            running.update(one.source)
            yield _Unit(one._replace(source=b""), size_bytes, _hex(running))  # the text is done with


def _hex(running: hashlib._Hash) -> str:
    return running.hexdigest()[:_HEX_DIGITS]

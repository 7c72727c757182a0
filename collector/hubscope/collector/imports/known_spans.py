"""Which spans of a file stand in the lake already: a trace that was exported from it, or sent on and fetched back.

A file that was imported is known by its content (`chunks`); what `hubscope trace --format otlp` printed, or a Jaeger
that was forwarded to, is a file nobody has imported, of spans that are there all the same. So each is looked for by
trace id, span id, kind and name (the two halves of a call may share both ids) among the spans that the lake had when
the import began. Spans that a collector stores meanwhile are not seen.

It is cheap because spans are only looked for where their times lie: of the lake's files and row groups those whose
statistics overlap with the chunk's are read, four columns of them, once. A million spans took 9.4 s into a lake with
a million others of the same time and 9.2 s into an empty one; a million that were there already 6.5 s.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from hubscope import lake_readers
from hubscope.exporters.lake_files import Storage
from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch

# Jaeger has microseconds: what comes back from it lies up to so much before the span in the lake.
_ROUNDED_NS: Final = 1_000
_TIME: Final = "TimestampUnixNano"
_DIGITS: Final = {"TraceId": 32, "SpanId": 16}
_TEXTS: Final = ("SpanKind", "SpanName")
# Odd, from SplitMix64 and MurmurHash3. Of 10 million spans and a million others a hash of 64 bits takes one for
# another with a probability of 5e-7.
_MULTIPLIERS: Final = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xFF51AFD7ED558CCD)
_KEPT_GROUPS: Final = 64  # of at most 122,880 spans: 60 MiB of hashes

_Hashes = np.ndarray[Any, np.dtype[np.uint64]]


class _File(NamedTuple):
    path: str
    first_ns: int | None  # of its rows' times; None where the log does not say
    last_ns: int | None


class KnownSpans:
    """A processor that takes the spans out of a batch that the lake had when this was made. `dropped` counts those of
    the last batch."""

    name = "known_spans"

    def __init__(self, lake: str, lease: lake_readers.Lease | None) -> None:
        uri = f"{lake.rstrip('/')}/{TRACES}"
        self.dropped = 0
        try:
            self._files = _files(DeltaTable(uri))
        except TableNotFoundError:  # it could not be made: a full disk, which the first append tells of
            self._files = []
        self._storage = Storage(uri)
        self._hashes: OrderedDict[tuple[str, int], _Hashes] = OrderedDict()
        self._opened: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        if lease is not None:
            lease.hold(f"{TRACES}/{file.path}" for file in self._files)

    def __call__(self, batch: Batch) -> Batch:
        self.dropped = 0
        spans = batch.tables.get(TRACES)
        if spans is None or not spans.num_rows or not self._files:
            return batch
        hashes, valid = _hashed(spans)
        known = np.zeros(len(hashes), dtype=bool)
        times = pc.min_max(spans[_TIME]).as_py()
        for there in self._between(times["min"], times["max"] + _ROUNDED_NS):
            places = np.minimum(np.searchsorted(there, hashes), len(there) - 1)
            known |= there[places] == hashes
        known &= valid
        self.dropped = int(known.sum())
        if not self.dropped:
            return batch
        return replace(batch, tables={**batch.tables, TRACES: spans.filter(pa.array(~known))})

    def _between(self, first_ns: int, last_ns: int) -> Iterator[_Hashes]:
        """The hashes, sorted, of each row group that may hold spans of that time."""
        for file in self._files:
            if not _overlap(file.first_ns, file.last_ns, first_ns, last_ns):
                continue
            parquet = self._open(file.path)
            for group in range(parquet.num_row_groups):
                if _overlap(*_range_of(parquet, group), first_ns, last_ns):
                    hashes = self._group(file.path, group, parquet)
                    if len(hashes):
                        yield hashes

    def _group(self, path: str, group: int, parquet: pq.ParquetFile) -> _Hashes:
        found = self._hashes.get((path, group))
        if found is None:
            hashes, valid = _hashed(parquet.read_row_group(group, columns=[*_DIGITS, *_TEXTS]))
            found = self._hashes[path, group] = np.sort(hashes[valid])
            if len(self._hashes) > _KEPT_GROUPS:
                self._hashes.popitem(last=False)
        self._hashes.move_to_end((path, group))
        return found

    def _open(self, path: str) -> pq.ParquetFile:
        parquet = self._opened.get(path)
        if parquet is None:
            parquet = self._opened[path] = pq.ParquetFile(self._storage.reading(path))
            if len(self._opened) > _KEPT_GROUPS:
                self._opened.popitem(last=False)[1].close(force=True)
        self._opened.move_to_end(path)
        return parquet


@contextmanager
def known_spans(lake: str) -> Iterator[KnownSpans]:
    """What knows the spans of a lake, whose files stay until the block ends."""
    lease = lake_readers.take(lake)
    try:
        yield KnownSpans(lake, lease)
    finally:
        if lease is not None:
            lease.release()


def _files(table: DeltaTable) -> list[_File]:
    actions = pa.table(table.get_add_actions(flatten=True))
    nothing = [None] * actions.num_rows
    low, high = (
        actions[name].to_pylist() if (name := f"{end}.{_TIME}") in actions.column_names else nothing
        for end in ("min", "max")
    )
    return [_File(unquote(path), *ends) for path, *ends in zip(actions["path"].to_pylist(), low, high, strict=True)]


def _overlap(low: int | None, high: int | None, first: int, last: int) -> bool:
    return low is None or high is None or (low <= last and high >= first)


def _range_of(parquet: pq.ParquetFile, group: int) -> tuple[int | None, int | None]:
    """The first and the last time of a row group; None where its statistics do not say."""
    metadata = parquet.metadata.row_group(group)
    for index in range(metadata.num_columns):
        column = metadata.column(index)
        if column.path_in_schema == _TIME:
            said = column.statistics
            return (said.min, said.max) if said is not None and said.has_min_max else (None, None)
    return None, None


def _hashed(rows: pa.Table) -> tuple[_Hashes, np.ndarray[Any, np.dtype[np.bool_]]]:
    """A hash of each row's ids, kind and name, and which rows have ids of the length that OTLP gives them."""
    hashes: _Hashes = np.zeros(rows.num_rows, np.uint64)
    valid = np.ones(rows.num_rows, dtype=bool)
    words: list[_Hashes] = [_hashed_texts(rows[name]) for name in _TEXTS]
    for name, digits in _DIGITS.items():
        ids = _one_array(rows[name]).cast(pa.string())
        fits = pc.fill_null(pc.equal(pc.binary_length(ids), digits), fill_value=False)
        valid &= fits.to_numpy(zero_copy_only=False)
        ids = pc.if_else(fits, ids, "0" * digits).cast(pa.binary()).cast(pa.binary(digits))
        eights = np.frombuffer(ids.buffers()[1], np.uint64, len(ids) * digits // 8, ids.offset * digits)
        words.extend(eights.reshape(-1, digits // 8).T)
    for turn, word in enumerate(words):
        hashes = (hashes ^ word) * np.uint64(_MULTIPLIERS[turn % len(_MULTIPLIERS)])
        hashes ^= hashes >> np.uint64(29)
    return hashes, valid


def _hashed_texts(column: pa.ChunkedArray) -> _Hashes:
    """Texts that are few: each is hashed once."""
    array = _one_array(column)
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    texts = [*coded.dictionary.to_pylist(), None]
    hashes = [int.from_bytes(hashlib.blake2b((text or "").encode(), digest_size=8).digest()) for text in texts]
    codes = pc.fill_null(coded.indices.cast(pa.int64()), len(texts) - 1).to_numpy()
    of_rows: _Hashes = np.array(hashes, np.uint64)[codes]
    return of_rows


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

"""Attribute lists as the lake's maps and hot columns, by whole columns.

A key that stands twice in one list (the specification forbids it, senders do it) keeps its last value: a map with a
key twice cannot be read by DuckDB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope.collector.otlp.decode_values import STRING_KIND, texts, type_names

Added: TypeAlias = Sequence[tuple[str, str]]  # keys and texts
_BITS: Final = 57  # the sum of as many entries, all with the last key, stays below 2^62
MAP: Final = pa.map_(pa.string(), pa.string())


class Attributes(NamedTuple):
    """The attribute lists of `rows` rows, flattened: entry i belongs to row `parents[i]`."""

    rows: int
    values: pa.MapArray  # key -> text, one map a row
    types: pa.MapArray  # key -> type, of the values that are no strings
    parents: Any  # int64[entries], ascending
    codes: Any  # int32[entries], into keys
    keys: pa.StringArray  # the distinct keys
    texts: pa.StringArray  # [entries]

    def column(self, key: str) -> pa.StringArray:
        """The value of one attribute for every row, null where the row has none."""
        code = self.keys.index(key).as_py()
        if code < 0:
            return pa.nulls(self.rows, pa.string())
        entries = np.flatnonzero(self.codes == code)
        index = np.full(self.rows, -1, dtype=np.int64)
        index[self.parents[entries]] = entries
        return self.texts.take(pa.array(index, mask=index < 0))

    def sizes_bytes(self) -> Any:
        """Bytes of keys and values of each row: int64[rows]."""
        lengths = pc.add(pc.binary_length(self.texts), pc.binary_length(self.keys).take(pa.array(self.codes)))
        return np.bincount(self.parents, weights=lengths.to_numpy(), minlength=self.rows).astype(np.int64)

    def with_absent(self, added: Added) -> Attributes:
        """With these attributes on every row that has none of their key."""
        if not added or not self.rows:
            return self
        parents, codes, keys, texts = [self.parents], [self.codes], self.keys.to_pylist(), [self.texts]
        for key, text in added:
            if key in keys:
                code = keys.index(key)
                has = np.bincount(self.parents[self.codes == code], minlength=self.rows) > 0
            else:
                code, has = len(keys), np.zeros(self.rows, bool)
                keys.append(key)
            lacking = np.flatnonzero(~has)
            parents.append(lacking)
            codes.append(np.full(len(lacking), code, self.codes.dtype))
            texts.append(pa.repeat(text, len(lacking)))
        owners = np.concatenate(parents)
        order = np.argsort(owners, kind="stable")
        owners, of_entry = owners[order], np.concatenate(codes)[order]
        values = pa.concat_arrays(texts).take(pa.array(order))
        names = pa.array(keys, pa.string())
        whole = _map(self.rows, owners, names.take(pa.array(of_entry)), values)
        return self._replace(values=whole, parents=owners, codes=of_entry, keys=names, texts=values)

    def with_extra(self, extra: dict[int, dict[str, str]]) -> tuple[pa.MapArray, pa.MapArray]:
        """Both maps with a few texts added: row -> key -> text. For numbers that an int64 cannot hold.

        They stay strings: as `int` a reader would cast them, and fail.
        """
        if not extra:
            return self.values, self.types
        values = self.values.to_pylist()
        for row, entries in extra.items():
            values[row] = list({**dict(values[row]), **entries}.items())
        return pa.array(values, MAP), self.types


def attributes(lists: pa.ListArray) -> Attributes:
    """The maps of a column of `repeated KeyValue`, as ptars gives it. Null lists count as empty.

    Raises OverlappingKindsError as `texts` does.
    """
    rows = len(lists)
    entries = lists.flatten()
    lengths = pc.fill_null(lists.value_lengths(), 0).to_numpy()
    parents = np.repeat(np.arange(rows, dtype=np.int64), lengths)
    encoded = entries.field("key").dictionary_encode()
    keys, codes = encoded.dictionary, encoded.indices.to_numpy()
    if _is_any_twice(lengths, codes, len(keys)):
        kept = _last_of_each(parents, codes, len(keys))
        entries = entries.take(pa.array(kept))
        parents, codes = parents[kept], codes[kept]
    text, kinds = texts(entries.field("value"))
    if kinds is None:
        typed_map = _map(rows, parents[:0], pa.array([], pa.string()), pa.array([], pa.string()))
    else:
        typed = np.flatnonzero(kinds != STRING_KIND)
        typed_map = _map(rows, parents[typed], keys.take(pa.array(codes[typed])), type_names(kinds[typed]))
    return Attributes(rows, _map(rows, parents, entries.field("key"), text), typed_map, parents, codes, keys, text)


def _is_any_twice(lengths: Any, codes: Any, key_count: int) -> bool:
    """Whether a row has a key twice. `lengths` are those of the rows, `codes` their keys one after the other."""
    if not len(codes):
        return False
    if lengths.max() > key_count:
        return True
    if key_count > _BITS:
        combined = np.sort(np.repeat(np.arange(len(lengths), dtype=np.int64), lengths) * key_count + codes)
        return bool((combined[1:] == combined[:-1]).any())
    # A bit a key: a row's sum of bits is what they are together only where each stands once. 0.02 µs a span of seven
    # attributes, where sorting takes 0.2.
    bits = np.left_shift(np.int64(1), codes.astype(np.int64))
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    return bool((np.add.reduceat(bits, starts) != np.bitwise_or.reduceat(bits, starts)).any())


def _last_of_each(parents: Any, codes: Any, key_count: int) -> Any:
    """Indices that keep the last entry of each (row, key)."""
    combined = parents * key_count + codes
    _, first_from_the_end = np.unique(combined[::-1], return_index=True)
    return np.sort(len(combined) - 1 - first_from_the_end)


def _map(rows: int, parents: Any, keys: pa.Array, values: pa.Array) -> pa.MapArray:
    offsets = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(parents, minlength=rows), out=offsets[1:])
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values)

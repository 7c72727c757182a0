"""The spans of a batch as Arrow columns, and which of them a feed means: the vectorised half of selection.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope.lake_schema import TRACES
from hubscope.processors.batch import Batch
from hubscope.processors.rules import Feed
from hubscope.processors.selection import matcher
from hubscope.semconv import HOT_COLUMNS, SERVICE_INSTANCE_ID, SERVICE_VERSION

_PRESENT = ("?*",)


class SpanColumns:
    """The spans of one table. Every column and every test of a column is computed once."""

    def __init__(self, spans: pa.Table) -> None:
        self.spans = spans
        self._texts: dict[str, pa.Array] = {}
        self._encoded: dict[str, pa.DictionaryArray] = {}  # of columns, and of attributes that have none
        self._attributes: dict[str, pa.Array] = {}
        self._masks: dict[tuple[str, tuple[str, ...]], pa.Array] = {}

    @classmethod
    def of(cls, batch: Batch) -> SpanColumns | None:
        """The spans that arrived with the batch, the same for all who ask, or None where it has none."""
        spans = batch.tables.get(TRACES)
        if spans is None or not spans.num_rows:
            return None
        found: SpanColumns | None = batch.shared.get(TRACES)
        if found is None or found.spans is not spans:
            found = batch.shared[TRACES] = cls(spans)
        return found

    def text(self, column: str) -> pa.Array:
        """A text column of the table, null as ''."""
        found = self._texts.get(column)
        if found is None:
            found = self._texts[column] = _whole(pc.fill_null(self.spans.column(column), ""))
        return found

    def attribute(self, name: str) -> pa.Array:
        """An attribute's text, '' where it is absent: from its own column where the lake has one, else from the map."""
        found = self._attributes.get(name)
        if found is None:
            if name in HOT_COLUMNS:
                found = self.text(HOT_COLUMNS[name])
            else:
                # Chunk by chunk: the maps are most of a span's bytes, and making them one array copies them.
                looked_up = pc.map_lookup(self.spans.column("SpanAttributes"), name, "first")
                found = _whole(pc.fill_null(looked_up, ""))
            self._attributes[name] = found
        return found

    def number(self, name: str) -> pa.Array:
        """A numeric attribute as doubles, null where it is absent or no number."""
        texts = self.attribute(name)
        numeric = pc.match_substring_regex(texts, r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        return pc.cast(pc.if_else(numeric, texts, pa.scalar(None, pa.string())), pa.float64())

    @cached_property
    def start_ns(self) -> pa.Array:
        return _whole(self.spans.column("TimestampUnixNano"))

    @cached_property
    def end_ns(self) -> pa.Array:
        return pc.add(self.start_ns, _whole(self.spans.column("Duration")))

    @cached_property
    def duration_s(self) -> pa.Array:
        return pc.divide(pc.cast(_whole(self.spans.column("Duration")), pa.float64(), safe=False), 1e9)

    @cached_property
    def service(self) -> pa.Array:
        return self.text("ServiceName")

    @cached_property
    def version(self) -> pa.Array:
        return self.attribute(SERVICE_VERSION)

    @cached_property
    def instance(self) -> pa.Array:
        return self.attribute(SERVICE_INSTANCE_ID)

    @cached_property
    def subjects(self) -> tuple[Any, list[tuple[str, str]]]:
        """Whose each span is: int64[spans], and the service and version that each of these numbers stands for."""
        services, versions = self.encoded("ServiceName"), self.encoded(HOT_COLUMNS[SERVICE_VERSION])
        pairs = services.indices.to_numpy().astype(np.int64) * len(versions.dictionary) + versions.indices.to_numpy()
        different, numbers = np.unique(pairs, return_inverse=True)
        at_service, at_version = np.divmod(different, len(versions.dictionary))
        names, of_version = services.dictionary.to_pylist(), versions.dictionary.to_pylist()
        return numbers, [(names[s], of_version[v]) for s, v in zip(at_service, at_version, strict=True)]

    def means(self, feed: Feed) -> pa.Array:
        """Boolean mask: the same answer as `selection.span_matches` for each row."""
        if not feed.span:
            return self._none
        mask = self._matches("SpanName", feed.span, self.text)
        if mask is self._none:
            return mask  # nearly every feed, for it means spans of a name that the batch has not
        if feed.kind:
            mask = pc.and_(mask, self._matches("SpanKind", feed.kind, self.text))
        if feed.root:
            mask = pc.and_(mask, self._matches("ParentSpanId", ("",), self.text))
        if feed.status:
            mask = pc.and_(mask, self._matches("StatusCode", (feed.status,), self.text))
        for name, globs in feed.where.items():
            if not pc.any(mask).as_py():
                break
            if name in HOT_COLUMNS or name in self._attributes:
                mask = pc.and_(mask, self._matches(name, globs, self.attribute))
            else:
                mask = self._among(mask, name, globs)
        return mask

    @cached_property
    def _none(self) -> pa.Array:
        return pa.array(np.zeros(self.spans.num_rows, bool))

    def _among(self, mask: pa.Array, name: str, globs: tuple[str, ...]) -> pa.Array:
        """The mask without the spans whose attribute, to be looked up in the map, is none of the globs."""
        rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        maps = self.spans.column("SpanAttributes").filter(mask)
        encoded = _whole(pc.fill_null(pc.map_lookup(maps, name, "first"), "")).dictionary_encode()
        found = np.zeros(self.spans.num_rows, bool)
        found[rows] = _matched(encoded, globs)
        return pa.array(found)

    def _matches(self, name: str, globs: tuple[str, ...], column: Callable[[str], pa.Array]) -> pa.Array:
        mask = self._masks.get((name, globs))
        if mask is None:
            if globs == _PRESENT:
                mask = pc.not_equal(column(name), "")
            elif globs == ("",):
                mask = pc.equal(column(name), "")
            else:
                found = _matched(self._encode(HOT_COLUMNS.get(name, name), column(name)), globs)
                mask = pa.array(found) if found.any() else self._none
            self._masks[(name, globs)] = mask
        return mask

    def encoded(self, column: str) -> pa.DictionaryArray:
        """A text column of the table by its different texts, null as ''."""
        return self._encode(column, self.text(column))

    def _encode(self, name: str, texts: pa.Array) -> pa.DictionaryArray:
        encoded = self._encoded.get(name)
        if encoded is None:
            encoded = self._encoded[name] = texts.dictionary_encode()
        return encoded


def _matched(encoded: pa.DictionaryArray, globs: tuple[str, ...]) -> Any:
    """bool[rows]. Globs are tried on the different texts only: 65,000 spans have some dozens of names."""
    matches = matcher(globs)
    return np.array([matches(text) for text in encoded.dictionary.to_pylist()], bool)[encoded.indices.to_numpy()]


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return column

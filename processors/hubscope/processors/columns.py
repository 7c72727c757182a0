"""The spans of a batch as Arrow columns, and which of them a feed means: the vectorised half of selection.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

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
        self._encoded: dict[str, pa.DictionaryArray] = {}  # of columns and attributes, which share no name
        self._attributes: dict[str, pa.Array] = {}
        self._masks: dict[tuple[str, tuple[str, ...]], pa.Array] = {}

    @classmethod
    def of(cls, batch: Batch) -> SpanColumns | None:
        """The spans that arrived with the batch, or None where it has none."""
        spans = batch.tables.get(TRACES)
        return cls(spans) if spans is not None and spans.num_rows else None

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
                looked_up = pc.map_lookup(_whole(self.spans.column("SpanAttributes")), name, "first")
                found = pc.fill_null(looked_up, "")
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

    def means(self, feed: Feed) -> pa.Array:
        """Boolean mask: the same answer as `selection.span_matches` for each row."""
        if not feed.span:
            return pa.array([False]).take(pa.array([0] * self.spans.num_rows, pa.int64()))
        mask = self._matches("SpanName", feed.span, self.text)
        if feed.kind:
            mask = pc.and_(mask, self._matches("SpanKind", feed.kind, self.text))
        if feed.root:
            mask = pc.and_(mask, self._matches("ParentSpanId", ("",), self.text))
        if feed.status:
            mask = pc.and_(mask, self._matches("StatusCode", (feed.status,), self.text))
        for name, globs in feed.where.items():
            if not pc.any(mask).as_py():
                break
            mask = pc.and_(mask, self._matches(name, globs, self.attribute))
        return mask

    def _matches(self, name: str, globs: tuple[str, ...], column: Callable[[str], pa.Array]) -> pa.Array:
        mask = self._masks.get((name, globs))
        if mask is None:
            texts = column(name)
            if globs == _PRESENT:
                mask = pc.not_equal(texts, "")
            elif globs == ("",):
                mask = pc.equal(texts, "")
            else:
                # Globs are tried on the different texts only: 65,000 spans have some dozens of names.
                encoded = self._encoded.get(name)
                if encoded is None:
                    encoded = self._encoded[name] = texts.dictionary_encode()
                matches = matcher(globs)
                mask = pa.array([matches(t) for t in encoded.dictionary.to_pylist()], pa.bool_()).take(encoded.indices)
            self._masks[(name, globs)] = mask
        return mask


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return column

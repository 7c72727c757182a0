"""What a span that was kept says of its sampling: the threshold in its trace state, and how many it stands for."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope.lake_schema import SCHEMAS, TRACES
from hubscope.processors.consistent import adjusted_count, randomness, threshold_in, with_threshold
from hubscope.semconv import HUB_SAMPLING_ADJUSTED_COUNT

_MAP: Final = SCHEMAS[TRACES].field("SpanAttributes").type


def marked(rows: pa.Table, threshold: int) -> pa.Table:
    """Spans kept with this threshold, 0 for those kept for certain. One that was sampled before, with a higher
    threshold that its randomness bears out, keeps that one: both together are what it was sampled with.
    """
    states = pc.fill_null(rows["TraceState"].combine_chunks(), "").dictionary_encode()
    known = states.dictionary.to_pylist()
    if any(known):
        ids = rows["TraceId"].to_pylist()
        texts = [known[index] for index in states.indices.to_pylist()]
        thresholds = [_together(trace_id, text, threshold) for trace_id, text in zip(ids, texts, strict=True)]
        written = [with_threshold(text, value) for text, value in zip(texts, thresholds, strict=True)]
        counts = [adjusted_count(value) for value in thresholds]
    else:
        written = [with_threshold("", threshold)] * rows.num_rows
        counts = [adjusted_count(threshold)] * rows.num_rows
    rows = rows.set_column(rows.schema.get_field_index("TraceState"), "TraceState", pa.array(written, pa.string()))
    standing = np.array(counts)
    if not (standing != 1.0).any():
        return rows
    several = pc.cast(pa.array(standing), pa.string())
    for column, text in (("SpanAttributes", several), ("SpanAttributeTypes", pa.repeat("double", len(several)))):
        maps = with_entry(rows[column].combine_chunks(), HUB_SAMPLING_ADJUSTED_COUNT, text, standing != 1.0)
        rows = rows.set_column(rows.schema.get_field_index(column), SCHEMAS[TRACES].field(column), maps)
    return rows


def _together(trace_id: str, trace_state: str, threshold: int) -> int:
    before = threshold_in(trace_state)
    chance = randomness(trace_id, trace_state)
    return threshold if before is None or chance is None or chance < before else max(before, threshold)


def with_entry(maps: pa.MapArray, key: str, texts: pa.StringArray, where: Any) -> pa.MapArray:
    """Maps with one more entry (text of the same row) where `where` is true; one of the same key is replaced."""
    offsets = maps.offsets.to_numpy()
    keys, items = (part[int(offsets[0]) : int(offsets[-1])] for part in (maps.keys, maps.items))
    lengths = np.diff(offsets)
    parents = np.repeat(np.arange(len(maps)), lengths)
    stale = pc.equal(keys, key).to_numpy(zero_copy_only=False) & where[parents]
    kept = np.flatnonzero(~stale)
    rows = np.flatnonzero(where)
    owners = np.concatenate([parents[kept], rows])
    order = np.argsort(owners, kind="stable")
    picked = pa.array(np.concatenate([kept, len(keys) + np.arange(len(rows))])[order])
    whole_keys = pa.concat_arrays([keys, pa.repeat(key, len(rows))]).take(picked)
    whole_items = pa.concat_arrays([items, texts.take(pa.array(rows))]).take(picked)
    bounds = np.zeros(len(maps) + 1, np.int32)
    np.cumsum(np.bincount(owners, minlength=len(maps)), out=bounds[1:])
    return pa.MapArray.from_arrays(pa.array(bounds), whole_keys, whole_items).cast(_MAP)

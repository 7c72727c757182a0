"""Rolling up: many values, or many partial rows of the rollup, become one row a series and minute.

The same sum makes the rows of a segment (`processors.rollup`) and joins the rows of many segments when their files are
merged. It has no memory, so a segment that comes again gives the same rows, and nothing must survive a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from hubscope.lake_schema import ROLLUP, ROLLUP_KEYS, SCHEMAS

MINUTE_NS: Final = 60 * 10**9
DAY_NS: Final = 86_400 * 10**9
BUCKETS_PER_DOUBLING: Final = 32  # scale 5, as hubscope.processors.sketch
LOWEST_BUCKET: Final = -1074 * BUCKETS_PER_DOUBLING  # of the smallest double; 0 and less is put there
# Series in one segment, or in what is merged at once. A hub has some hundred operations and query shapes; more have
# only names that hold an id, and these say nothing as a series.
MAX_SERIES: Final = 2_000
OTHER: Final = "(other)"

_SUBJECT: Final = ROLLUP_KEYS[:3]  # whose series they are
_KEPT_OF_OTHERS: Final = (*_SUBJECT, "MetricName")
_MAX_CODE: Final = 1 << 62
_SUMS: Final = (("count", "sum"), ("errors", "sum"), ("total", "sum"), ("low", "min"), ("high", "max"), ("row", "min"))
_MEASURES: Final = ("count", "errors", "total", "low", "high", "row")


def bucket_of(values: pa.Array) -> pa.Array:
    """The bucket of each value (doubles, none NaN) as int32."""
    positive = pc.greater(values, 0.0)
    exponents = pc.log2(pc.if_else(positive, values, 1.0))
    buckets = pc.subtract(pc.ceil(pc.multiply(exponents, float(BUCKETS_PER_DOUBLING))), 1.0)
    return pc.cast(pc.if_else(positive, buckets, float(LOWEST_BUCKET)), pa.int32())


def roll(keys: Mapping[str, pa.Array], values: Mapping[str, pa.Array], max_series: int = MAX_SERIES) -> pa.Table:
    """One row a series and minute, in the rollup's schema, in a fixed order.

    `keys`: text columns of ROLLUP_KEYS, '' or null for none. `values`: `minute` (int64, ns of its first moment),
    `bucket` (int32), `count` and `errors` (int64), `total`, `low` and `high` (double). All are of one length. Of more
    than `max_series` series those with the fewest values become `(other)`, one a service, version and instance.
    """
    size = len(values["minute"])
    if not size:
        return SCHEMAS[ROLLUP].empty_table()
    codes = {name: _codes(column) for name, column in keys.items()}
    series = _combined([codes[name] for name in ROLLUP_KEYS if name in codes])
    series, others = _bounded(series, codes, values["count"], max_series)
    work = pa.table({"series": series, **values, "row": _numbers(size)})
    fine = _grouped(work, ["series", "minute", "bucket"])
    # Sorted both: Arrow gives groups mostly in the order of their first rows, and not where hashes collide.
    fine = fine.sort_by([(name, "ascending") for name in ("series", "minute", "bucket")])
    rows = _grouped(fine, ["series", "minute"], ("bucket", "count"))
    rows = rows.sort_by([("series", "ascending"), ("minute", "ascending")])
    ends = pc.cumulative_sum(_whole(rows["bucket"]))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cast(ends, pa.int32())])
    lists = {
        "BucketIndexes": pa.ListArray.from_arrays(offsets, _whole(fine["bucket"])),
        "BucketCounts": pa.ListArray.from_arrays(offsets, _whole(fine["count"])),
    }
    return _table(rows, lists, keys, others)


def merged(rows: pa.Table, max_series: int = MAX_SERIES) -> pa.Table:
    """The rollup's rows (without the partition column) with those of one series and minute added up."""
    lists = _whole(rows["BucketIndexes"])
    parents = pc.list_parent_indices(lists)
    first = pc.fill_null(pc.not_equal(parents, _shifted(parents)), True)  # of each row, what counts once
    zero, one = pa.scalar(0, pa.int64()), pa.scalar(0.0, pa.float64())

    def once(name: str, otherwise: pa.Scalar) -> pa.Array:
        return pc.if_else(first, _whole(rows[name]).take(parents), otherwise)

    values = {
        "minute": _whole(rows["TimeUnixNano"]).take(parents),
        "bucket": pc.list_flatten(lists),
        "count": pc.list_flatten(_whole(rows["BucketCounts"])),
        "errors": once("ErrorCount", zero),
        "total": once("Sum", one),
        "low": _whole(rows["Min"]).take(parents),
        "high": _whole(rows["Max"]).take(parents),
    }
    keys = {name: _whole(rows[name]).take(parents) for name in ROLLUP_KEYS}
    return roll(keys, values, max_series).drop_columns(["Date"])


def _grouped(table: pa.Table, by: list[str], *more: tuple[str, str]) -> pa.Table:
    """The sums of the groups, under the names they had. Without threads: a replay must give the same last digits."""
    found = table.group_by(by, use_threads=False).aggregate([*_SUMS, *more])
    names = [*by, *_MEASURES, *(name for name, _ in more)]
    return found.rename_columns(names) if found.column_names[: len(by)] == by else found


def _codes(column: pa.Array) -> tuple[pa.Array, int]:
    """(a number for each different text, how many numbers there are)."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    indices = pc.cast(column.indices, pa.int64())
    if indices.null_count:  # 3 ms a column of 33,000 where there is none
        indices = pc.fill_null(indices, len(column.dictionary))
    return indices, len(column.dictionary) + 1


def _combined(codes: list[tuple[pa.Array, int]]) -> pa.Array:
    """One number for each different combination."""
    whole, many = codes[0]
    for indices, different in codes[1:]:
        if different == 1:
            continue
        if many * different > _MAX_CODE:
            encoded = whole.dictionary_encode()
            whole, many = pc.cast(encoded.indices, pa.int64()), len(encoded.dictionary)
        whole, many = pc.add(pc.multiply(whole, different), indices), many * different
    return whole


def _bounded(
    series: pa.Array, codes: Mapping[str, tuple[pa.Array, int]], counts: pa.Array, max_series: int
) -> tuple[pa.Array, pa.Array | None]:
    """The series with those beyond the bound made one a subject, and which rows these are; None where none are."""
    groups = pa.table({"series": series, "n": counts}).group_by("series", use_threads=False).aggregate([("n", "sum")])
    if groups.num_rows <= max_series:
        return series, None
    most = groups.sort_by([("n_sum", "descending"), ("series", "ascending")]).slice(0, max_series)
    others = pc.invert(pc.is_in(series, value_set=_whole(most["series"])))
    subject = _combined([codes[name] for name in _KEPT_OF_OTHERS if name in codes])
    return pc.if_else(others, pc.subtract(-1, subject), series), others


def _table(
    rows: pa.Table, lists: Mapping[str, pa.Array], keys: Mapping[str, pa.Array], others: pa.Array | None
) -> pa.Table:
    schema = SCHEMAS[ROLLUP]
    first = _whole(rows["row"])
    minute = _whole(rows["minute"])
    micros = pc.divide(minute, 1000)
    columns: dict[str, pa.Array] = {
        "Date": pc.cast(pc.cast(pc.divide(minute, DAY_NS), pa.int32()), pa.date32()),
        "TimeUnix": pc.cast(micros, schema.field("TimeUnix").type),
        "TimeUnixNano": minute,
        "Count": _whole(rows["count"]),
        "ErrorCount": _whole(rows["errors"]),
        "Sum": _whole(rows["total"]),
        "Min": _whole(rows["low"]),
        "Max": _whole(rows["high"]),
        **lists,
    }
    is_other = others.take(first) if others is not None else None
    nothing = pa.scalar(None, pa.string())
    for name in ROLLUP_KEYS:
        if name not in keys:
            columns[name] = pa.nulls(rows.num_rows, pa.string())
            continue
        texts = pc.cast(keys[name].take(first), pa.string())
        texts = pc.if_else(pc.equal(texts, ""), nothing, texts)
        if is_other is not None and name not in _KEPT_OF_OTHERS:
            texts = pc.if_else(is_other, OTHER if name == "SpanName" else nothing, texts)
        columns[name] = texts
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _numbers(size: int) -> pa.Array:
    return pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), size)), 1)


def _shifted(values: pa.Array) -> pa.Array:
    """Each value's predecessor; null before the first."""
    return pa.concat_arrays([pa.nulls(1, values.type), values.slice(0, max(0, len(values) - 1))]).slice(0, len(values))


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

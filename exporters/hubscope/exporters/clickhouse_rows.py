"""The lake's rows as a ClickHouse table takes them: its columns, whichever of ours it has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

# The column that holds the exact nanoseconds of a time; Delta keeps microseconds.
_EXACT: Final = {
    "Timestamp": "TimestampUnixNano",
    "TimeUnix": "TimeUnixNano",
    "StartTimeUnix": "StartTimeUnixNano",
}
_NANOSECONDS: Final = pa.timestamp("ns", tz="UTC")


def rows_for(rows: pa.Table, wanted: Iterable[str]) -> pa.Table:
    """The wanted columns as far as we have them, in ClickHouse's form, for Arrow input.

    Nested columns (`Events.Name`) are lists taken out of lists of structs. Times are whole nanoseconds. ClickHouse
    reads null as the column's default: '' or 0. What has no column in the table is not sent.
    """
    found: dict[str, pa.Array] = {}
    for column in wanted:
        array = _column(rows, column)
        if array is not None:
            found[column] = array
    return pa.table(found)


def _column(rows: pa.Table, column: str) -> pa.Array | None:
    outer, dot, inner = column.partition(".")
    if dot:
        if outer not in rows.column_names or not pa.types.is_list(rows.schema.field(outer).type):
            return None
        return _nested(_whole(rows, outer), inner)
    if column in _EXACT and _EXACT[column] in rows.column_names:
        return _time(rows, column)
    if column not in rows.column_names:
        return None
    array = _whole(rows, column)
    if column == "Duration":  # unsigned there; a clock that went back would read 584 years
        return pc.max_element_wise(array, pa.scalar(0, pa.int64()))
    return array


def _time(rows: pa.Table, column: str) -> pa.Array:
    exact = _whole(rows, _EXACT[column])
    if "ObservedTimestampUnixNano" in rows.column_names:  # a log record without a time of its own
        exact = pc.if_else(pc.equal(exact, 0), _whole(rows, "ObservedTimestampUnixNano"), exact)
    return pc.cast(exact, _NANOSECONDS)


def _nested(lists: pa.ListArray, inner: str) -> pa.ListArray | None:
    structs = lists.flatten()
    names = [structs.type.field(index).name for index in range(structs.type.num_fields)]
    if inner not in names:
        return None
    values = pc.struct_field(structs, inner)
    if inner in _EXACT and _EXACT[inner] in names:
        values = pc.cast(pc.struct_field(structs, _EXACT[inner]), _NANOSECONDS)
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cast(pc.cumulative_sum(lengths), pa.int32())])
    return pa.ListArray.from_arrays(offsets, values)


def _whole(rows: pa.Table, column: str) -> pa.Array:
    array = rows[column].combine_chunks()
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)

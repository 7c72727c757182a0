"""What the decoders of the three signals share: ids, times, and the resource and scope that stand above every row."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.collector.otlp.attributes import Added, Attributes, attributes
from hubscope.errors import BadInputError
from hubscope.lake_schema import EXACT_PREFIX

INT64_MAX: Final = (1 << 63) - 1
# Resource and scope attributes are repeated on every row. A request of 64 MiB can hold a megabyte of them above a
# million empty spans: 1 TiB of rows. Ordinary senders repeat 0.5 to 2 KiB over 512 spans, 1 MiB a request.
MAX_REPEATED_BYTES: Final = 1 << 30

_time = pa.timestamp("us", tz="UTC")
_HEX: Final = np.frombuffer(bytes.fromhex("".join(f"{b:02x}".encode().hex() for b in range(256))), np.uint16)
_FROM_RESOURCE: Final = (semconv.SERVICE_VERSION, semconv.SERVICE_INSTANCE_ID)


class Above(NamedTuple):
    """A request's resources and scopes, and which of them each row is under."""

    rows: pa.StructArray  # spans, log records or metrics
    scope_of_row: Any  # int64[rows]
    scopes: pa.StructArray
    resource_of_scope: Any  # int64[scopes]
    resources: pa.StructArray


def walk(requests: pa.ListArray, scopes_name: str, rows_name: str) -> Above:
    """From a column of requests down to their rows."""
    resources = requests.flatten()
    scope_lists = resources.field(scopes_name)
    scopes = scope_lists.flatten()
    row_lists = scopes.field(rows_name)
    return Above(row_lists.flatten(), parents_of(row_lists), scopes, parents_of(scope_lists), resources)


def parents_of(lists: pa.ListArray) -> Any:
    """For each flattened member the index of its list: int64[members]."""
    lengths = pc.fill_null(lists.value_lengths(), 0).to_numpy()
    return np.repeat(np.arange(len(lists), dtype=np.int64), lengths)


def resource_and_scope(above: Above, scope_of_row: Any, added: Added = ()) -> dict[str, pa.Array]:
    """The columns that every table has, for rows under these scopes. `ServiceName` is '' where no service is named.

    `added` are attributes of each resource that has none of their key.

    Raises BadInputError where repeating them would take more than MAX_REPEATED_BYTES.
    """
    resource = above.resources.field("resource")
    scope = above.scopes.field("scope")
    resource_attributes = attributes(resource.field("attributes")).with_absent(added)
    scope_attributes = attributes(scope.field("attributes"))
    resource_of_row = above.resource_of_scope[scope_of_row]
    _check_repeated(resource_attributes, resource_of_row, "resource")
    _check_repeated(scope_attributes, scope_of_row, "scope")
    by_resource, by_scope = pa.array(resource_of_row), pa.array(scope_of_row)
    service = pc.fill_null(resource_attributes.column(semconv.SERVICE_NAME), "")
    answer = {
        "ServiceName": service.take(by_resource),
        "ResourceAttributes": resource_attributes.values.take(by_resource),
        "ResourceAttributeTypes": resource_attributes.types.take(by_resource),
        "ResourceDroppedAttributesCount": whole(resource.field("dropped_attributes_count")).take(by_resource),
        "ResourceSchemaUrl": above.resources.field("schema_url").take(by_resource),
        "ScopeName": scope.field("name").take(by_scope),
        "ScopeVersion": scope.field("version").take(by_scope),
        "ScopeAttributes": scope_attributes.values.take(by_scope),
        "ScopeAttributeTypes": scope_attributes.types.take(by_scope),
        "ScopeDroppedAttrCount": whole(scope.field("dropped_attributes_count")).take(by_scope),
        "ScopeSchemaUrl": above.scopes.field("schema_url").take(by_scope),
    }
    for key in _FROM_RESOURCE:
        answer[semconv.HOT_COLUMNS[key]] = resource_attributes.column(key).take(by_resource)
    return answer


def hot_columns(of_row: Attributes) -> dict[str, pa.Array]:
    """The hot columns that come from a row's own attributes."""
    return {c: of_row.column(key) for key, c in semconv.HOT_COLUMNS.items() if key not in _FROM_RESOURCE}


def hex_ids(ids: pa.BinaryArray) -> pa.StringArray:
    """Ids as lower-case hexadecimal text, two digits a byte; '' for an empty one. No nulls in, none out."""
    if not len(ids):
        return pa.array([], pa.string())
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    data = ids.buffers()[2]
    raw = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    digits = pa.py_buffer(_HEX[raw])
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer((offsets - offsets[0]) * np.int32(2)), digits)


def whole(numbers: pa.Array) -> pa.Int64Array:
    """Unsigned 32-bit or enum numbers in the lake's one integer type."""
    return numbers.cast(pa.int64())


class Exact:
    """Numbers above 2^63-1, which the lake's integers cannot hold: they read 2^63-1 there, and exactly as an attribute.

    Only broken clocks and counters send them. `extra` collects row -> attribute `hub.exact.{field}` -> decimal text.
    """

    def __init__(self) -> None:
        self.extra: dict[int, dict[str, str]] = {}

    def int64(self, field: str, numbers: pa.UInt64Array) -> pa.Int64Array:
        """The numbers as int64, row by row."""
        values = numbers.to_numpy(zero_copy_only=False)
        large = values > INT64_MAX
        if large.any():
            for row in np.flatnonzero(large):
                self.extra.setdefault(int(row), {})[EXACT_PREFIX + field] = str(values[row])
            values = np.where(large, np.uint64(INT64_MAX), values)
        return pa.array(values.astype(np.int64))

    def int64_lists(self, field: str, lists: pa.ListArray) -> pa.ListArray:
        """Lists of numbers as lists of int64; a list with a number too large stands whole as the attribute."""
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        large = flat > INT64_MAX
        if large.any():
            for row in np.unique(parents_of(lists)[large]):
                numbers = ",".join(str(n) for n in lists[int(row)].as_py())
                self.extra.setdefault(int(row), {})[EXACT_PREFIX + field] = f"[{numbers}]"
            flat = np.where(large, np.uint64(INT64_MAX), flat)
        return same_lists(lists, pa.array(flat.astype(np.int64)))


def same_lists(lists: pa.ListArray, members: pa.Array) -> pa.ListArray:
    """Lists of the same lengths over other members."""
    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum(pc.fill_null(lists.value_lengths(), 0).to_numpy(), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), members)


def microseconds(unix_nano: pa.Int64Array) -> pa.TimestampArray:
    """Delta's time: nanoseconds rounded down to microseconds."""
    return pa.array(np.floor_divide(unix_nano.to_numpy(), 1000)).view(_time)


def day(time: pa.TimestampArray) -> pa.Date32Array:
    """The UTC date that the lake is partitioned by."""
    return pa.array(np.floor_divide(time.view(pa.int64()).to_numpy(), 86_400_000_000).astype(np.int32)).view(
        pa.date32()
    )


def named(numbers: pa.Int32Array, names: pa.StringArray) -> pa.StringArray:
    """The names of enum numbers; a number without a name (of a newer protocol) is its decimal text."""
    values = numbers.to_numpy()
    known = (values >= 0) & (values < len(names))
    if known.all():
        return names.take(numbers)
    return pc.coalesce(names.take(pa.array(np.where(known, values, 0), mask=~known)), numbers.cast(pa.string()))


def _check_repeated(of: Attributes, owner_of_row: Any, what: str) -> None:
    if not of.rows or not len(owner_of_row):
        return
    size_bytes = of.sizes_bytes()
    if int(size_bytes.max()) * len(owner_of_row) <= MAX_REPEATED_BYTES:
        return
    repeated = int(size_bytes[owner_of_row].sum())
    if repeated > MAX_REPEATED_BYTES:
        raise BadInputError(
            f"the {what} attributes of a request, repeated on each of its {len(owner_of_row)} rows, take"
            f" {repeated >> 20} MiB (the limit is {MAX_REPEATED_BYTES >> 20} MiB)",
            f"send smaller requests, or smaller {what} attributes",
        )

"""What arrives, as columns: where in a group of requests a processor has something to do, without looking at each row.

Redaction and attribute limits change what arrived: rows of the lake, and what is forwarded. Nearly always they have
nothing to do, so they look at whole columns as ptars gives them, and only the requests and rows that they point at are
parsed, changed and serialised. What they leave alone stays byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The lists whose members are a request's rows, and what is above them: a resource's list, a scope's.
_ROWS: Final = frozenset({"spans", "log_records", "metrics"})
_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})


class Kind(Enum):
    TEXT = "text"
    KEY = "key"  # attribute keys
    NESTED = "nested"  # raw protobuf: members of arrays and key-value lists
    BYTES = "bytes"
    INT = "int"  # integer values of attributes
    LIST = "list"  # lists of attributes: for their lengths


@dataclass(frozen=True)
class Leaf:
    """One column of values. `owners()` names the row, or the request where `in_row` is false, of each value."""

    name: str
    kind: Kind
    values: pa.Array
    in_row: bool
    owners: Callable[[], Any]
    metric: bool = False


@dataclass
class Suspects:
    """Where something is to be done: numbers of rows, and of requests for what stands above their rows."""

    rows: set[int] = field(default_factory=set)
    requests: set[int] = field(default_factory=set)

    def add(self, leaf: Leaf, indices: Any) -> None:
        """The owners of these values of a leaf."""
        if len(indices):
            (self.rows if leaf.in_row else self.requests).update(leaf.owners()[indices].tolist())


class Arriving(Protocol):
    """A processor of what arrives. `name` and `counts` go to the telemetry."""

    name: str

    def suspects(self, leaves: Sequence[Leaf], found: Suspects) -> None:
        """Add where there may be something to do; whatever is not added is left alone."""

    def mend(self, message: Any) -> bool:
        """Change a row, resource or scope in place; whether anything was changed."""

    def counts(self) -> dict[str, int]:
        """What was done since the process started."""


def leaves(requests: pa.RecordBatch) -> tuple[list[Leaf], Any]:
    """The columns of requests, and the request of each row: int64[rows], ascending."""
    found: list[Leaf] = []
    request_of_row: list[Any] = []

    def walk(name: str, values: pa.Array, owners: Callable[[], Any], in_row: bool, metric: bool) -> None:
        kind = values.type
        if pa.types.is_struct(kind):
            for index in range(kind.num_fields):
                walk(kind.field(index).name, values.field(index), owners, in_row, metric)
        elif pa.types.is_list(kind):
            if name == "attributes":
                found.append(Leaf(name, Kind.LIST, values, in_row, owners, metric))
            members = values.flatten()
            if not len(members):
                return

            def below(lists: pa.Array = values) -> Any:
                return np.repeat(owners(), pc.fill_null(lists.value_lengths(), 0).to_numpy())

            if name in _ROWS and not in_row:
                request_of_row.append(below())
                rows = np.arange(len(members), dtype=np.int64)
                walk(name, members, lambda: rows, True, name == "metrics")
            else:
                walk(name, members, _once(below), in_row, metric)
        elif (leaf := _kind(name, kind)) and values.null_count < len(values):
            found.append(Leaf(name, leaf, values, in_row, owners, metric))

    numbers = np.arange(len(requests), dtype=np.int64)
    for name, column in zip(requests.schema.names, requests.columns, strict=True):
        walk(name, column, lambda: numbers, False, False)
    return found, request_of_row[0] if request_of_row else np.zeros(0, np.int64)


def _once(ask: Callable[[], Any]) -> Callable[[], Any]:
    known: list[Any] = []

    def answer() -> Any:
        if not known:
            known.append(ask())
        return known[0]

    return answer


def _kind(name: str, type: pa.DataType) -> Kind | None:
    if pa.types.is_string(type):
        return Kind.KEY if name == "key" else Kind.TEXT
    if pa.types.is_binary(type):
        return None if name in _IDS else Kind.BYTES if name == "bytes_value" else Kind.NESTED
    return Kind.INT if name == "int_value" else None


def mend(request: Any, above: bool, ordinals: Sequence[int], processors: Sequence[Arriving]) -> bool:
    """Let the processors change a parsed request: its rows of these ordinals, and with `above` resources and scopes."""
    changed = False
    for message in [*(_above(request) if above else ()), *_rows_of(request, ordinals)]:
        for processor in processors:
            changed = processor.mend(message) or changed
    return changed


def mend_all(request: Any, processors: Sequence[Arriving]) -> bool:
    """The same for everything in it: for a request whose columns cannot be had."""
    return mend(request, True, range(sum(map(len, _row_lists(request)))), processors)


def _scopes(request: Any) -> Iterator[Any]:
    for _, resources in request.ListFields():
        for resource in resources:
            for descriptor, scopes in resource.ListFields():
                if descriptor.name.startswith("scope_"):
                    yield from scopes


def _row_lists(request: Any) -> Iterator[Any]:
    for scope in _scopes(request):
        for descriptor, rows in scope.ListFields():
            if descriptor.name in _ROWS:
                yield rows


def _rows_of(request: Any, ordinals: Sequence[int]) -> Iterator[Any]:
    """The rows of these ordinals, which ascend; the others are never made objects of."""
    lists = _row_lists(request)
    rows: Any = ()
    first = 0
    for ordinal in ordinals:
        while ordinal >= first + len(rows):
            first += len(rows)
            rows = next(lists)
        yield rows[ordinal - first]


def _above(request: Any) -> Iterator[Any]:
    """Resources and scopes, and what holds them, which has their schema URLs."""
    for _, resources in request.ListFields():
        yield from resources
    yield from _scopes(request)

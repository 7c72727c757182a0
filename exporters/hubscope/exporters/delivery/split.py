"""A request that is too large, as two: cut between items, on the wire, whatever the signal.

The three requests have the same numbers down to the items: Request.resource_x = 1; ResourceX.resource = 1, scope_x = 2,
schema_url = 3; ScopeX.scope = 1, items = 2, schema_url = 3 (opentelemetry/proto/collector/*/v1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from hubscope.exporters.delivery.outcome import fields
from hubscope.exporters.delivery.settings import Signal
from hubscope.exporters.encoding.wire import LENGTH, field, tag, varint_at

_ONE: Final = tag(1, LENGTH)
_TWO: Final = tag(2, LENGTH)
_METRIC_DATA: Final = frozenset({5, 7, 9, 10, 11})  # Metric: gauge, sum, histogram, exponential histogram, summary


class _Item(NamedTuple):
    resource: int  # which of the request's resources
    scope: int  # which of its scopes
    around_scopes: bytes  # the resource's other fields
    around_items: bytes  # the scope's other fields
    content: bytes  # the item, with its tag


def halves(payload: bytes, signal: Signal) -> tuple[tuple[bytes, int], tuple[bytes, int]] | None:
    """Two requests that together say what `payload` says, each with its number of items; None for a single item.

    Items are spans, log records, or data points; a metric is not cut. Raises ValueError for what is no request.
    """
    items = list(_items(payload))
    if len(items) < 2:
        return None
    half, size, cut = sum(len(item.content) for item in items) / 2, 0, 0
    while cut < len(items) - 1 and (cut == 0 or size + len(items[cut].content) <= half):
        size += len(items[cut].content)
        cut += 1
    first, second = items[:cut], items[cut:]
    return (_request(first), _count(first, signal)), (_request(second), _count(second, signal))


def count(payload: bytes, signal: Signal) -> int:
    """How many items a request holds. Raises ValueError for what is no request."""
    return _count(list(_items(payload)), signal)


def _items(payload: bytes) -> Iterator[_Item]:
    for number, (_, resource) in enumerate(_of(payload, 1)):
        around_scopes = _others(resource)
        for position, (_, scope) in enumerate(_of(resource, 2)):
            around_items = _others(scope)
            for raw, _ in _of(scope, 2):
                yield _Item(number, position, around_scopes, around_items, raw)


def _of(message: bytes, wanted: int) -> Iterator[tuple[bytes, bytes]]:
    """The fields with that number: with their tag and length, and without."""
    for number, start, content, end in _raw(message):
        if number == wanted:
            yield message[start:end], message[content:end]


def _others(message: bytes) -> bytes:
    return b"".join([message[start:end] for number, start, _, end in _raw(message) if number != 2])


def _raw(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Of each field the number, where its tag begins, where its content begins, and where it ends."""
    position = 0
    while position < len(message):
        start = position
        key, position = varint_at(message, position)
        if key & 7 != LENGTH:
            raise ValueError("no OTLP request: a field that is no message and no text")
        size, content = varint_at(message, position)
        position = content + size
        if position > len(message):
            raise ValueError("no OTLP request: it is cut short")
        yield key >> 3, start, content, position


def _request(items: Sequence[_Item]) -> bytes:
    resources: list[bytes] = []
    for _, of_resource in groupby(items, key=lambda item: item.resource):
        scopes: list[bytes] = []
        around_scopes = b""
        for _, of_scope in groupby(of_resource, key=lambda item: item.scope):
            group = list(of_scope)
            around_scopes = group[0].around_scopes
            scopes.append(field(_TWO, b"".join([*(item.content for item in group), group[0].around_items])))
        resources.append(field(_ONE, b"".join([*scopes, around_scopes])))
    return b"".join(resources)


def _count(items: Sequence[_Item], signal: Signal) -> int:
    if signal != "metrics":
        return len(items)
    points = 0
    for item in items:
        for _, _, content, end in _raw(item.content):
            for number, data in fields(item.content[content:end]):
                if number in _METRIC_DATA and isinstance(data, bytes):
                    points += sum(inner == 1 for inner, _ in fields(data))
    return points

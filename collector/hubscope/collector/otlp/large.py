"""Validating a large request in pieces, so that a few bytes cannot become gigabytes.

An empty span is 2 bytes on the wire and 88 B in memory: parsed at once, 64 MiB of them (64 KB of gzip) took 5.6 GB and
the process with it. Protobuf lets any run of a message's fields be parsed as that message, so a large message is cut
between its fields into runs of PIECE_BYTES, each parsed and forgotten; a large field that is a message itself is cut
in its turn. What is walked field by field is bounded in number. Ordinary requests are small and never come here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from hubscope.collector.otlp.ids import WrongIds, add_wrong_ids, refuse
from hubscope.errors import BadInputError
from hubscope.exporters.encoding.wire import varint_at

LARGE_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 256 * 1024  # at 2 B a message 12 MB while it is parsed
# Spans of 370 B come to 181,000 in 64 MiB, with seven attributes each to 1.3 million parts.
MAX_ITEMS: Final = 1_000_000
MAX_PARTS: Final = 2_000_000
MAX_DEPTH: Final = 100  # messages inside each other, as protobuf's own parser has it

_LENGTH_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}


class _Level(NamedTuple):
    """A message of the way down to the items: how many of them, and of their parts, are in one that is parsed."""

    items: Callable[[Any], int]
    parts: Callable[[Any], int]


def _none(message: Any) -> int:
    return 0


def _span_parts(scope: Any) -> int:
    return sum([len(s.attributes) + len(s.events) + len(s.links) for s in scope.spans])


def _points(metric: Any) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0


def _resource(scopes: str, level: _Level) -> _Level:
    return _Level(
        lambda resource: sum([level.items(scope) for scope in getattr(resource, scopes)]),
        lambda resource: sum([1 + level.parts(scope) for scope in getattr(resource, scopes)]),
    )


def _request(resources: str, level: _Level) -> _Level:
    return _resource(resources, level)


_SCOPE_SPANS: Final = _Level(lambda scope: len(scope.spans), _span_parts)
_SCOPE_LOGS: Final = _Level(
    lambda scope: len(scope.log_records), lambda scope: sum([len(r.attributes) for r in scope.log_records])
)
_METRIC: Final = _Level(_points, _points)
_SCOPE_METRICS: Final = _Level(
    lambda scope: sum([_points(metric) for metric in scope.metrics]), lambda scope: len(scope.metrics)
)
_DATA: Final = _Level(lambda data: len(data.data_points), _none)
_LEVELS: Final = {
    "ExportTraceServiceRequest": _request("resource_spans", _resource("scope_spans", _SCOPE_SPANS)),
    "ResourceSpans": _resource("scope_spans", _SCOPE_SPANS),
    "ScopeSpans": _SCOPE_SPANS,
    "Span": _Level(_none, lambda s: len(s.attributes) + len(s.events) + len(s.links)),
    "ExportLogsServiceRequest": _request("resource_logs", _resource("scope_logs", _SCOPE_LOGS)),
    "ResourceLogs": _resource("scope_logs", _SCOPE_LOGS),
    "ScopeLogs": _SCOPE_LOGS,
    "LogRecord": _Level(_none, lambda r: len(r.attributes)),
    "ExportMetricsServiceRequest": _request("resource_metrics", _resource("scope_metrics", _SCOPE_METRICS)),
    "ResourceMetrics": _resource("scope_metrics", _SCOPE_METRICS),
    "ScopeMetrics": _SCOPE_METRICS,
    "Metric": _METRIC,
    **dict.fromkeys(("Gauge", "Sum", "Histogram", "ExponentialHistogram", "Summary"), _DATA),
}
# An item that is cut itself counts where its field is met, not in the runs.
_ITEM_FIELDS: Final = {
    ("ScopeSpans", "spans"),
    ("ScopeLogs", "log_records"),
    *((kind, "data_points") for kind in ("Gauge", "Sum", "Histogram", "ExponentialHistogram", "Summary")),
}
_OTHER: Final = _Level(_none, _none)


class _Counts:
    """What was found so far."""

    def __init__(self) -> None:
        self.items = 0
        self.parts = 0
        self.wrong_ids: WrongIds = Counter()

    def add(self, items: int, parts: int) -> None:
        self.items += items
        self.parts += parts
        if self.items > MAX_ITEMS or self.parts > MAX_PARTS:
            raise BadInputError(
                f"the request has more than {MAX_ITEMS} spans, points or records, or more than {MAX_PARTS} parts in"
                " them",
                "send smaller batches",
            )


def count_large(message: Any, payload: bytes) -> int:
    """The items of a large request. Raises BadInputError for too many of them and for ids of a wrong length, and
    DecodeError for bad bytes."""
    counts = _Counts()
    try:
        _walk(message, memoryview(payload), counts, 0)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    refuse(counts.wrong_ids)
    return counts.items


def _walk(message: Any, data: memoryview, counts: _Counts, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DecodeError("nested too deep")
    level = _LEVELS.get(message.name, _OTHER)
    parse = GetMessageClass(message).FromString

    def check(start: int, end: int) -> None:
        if end > start:
            part = data[start:end].tobytes()
            run = parse(part)
            counts.add(level.items(run), level.parts(run))
            add_wrong_ids(message.full_name, part, counts.wrong_ids)

    position = run_start = fields = 0
    while position < len(data):
        start = position
        tag, position = varint_at(data, position)
        wire = tag & 7
        value = position
        if wire == 0:
            _, position = varint_at(data, position)
        elif wire == _LENGTH_DELIMITED:
            size, value = varint_at(data, position)
            position = value + size
        elif wire in _FIXED:
            position += _FIXED[wire]
        else:
            raise DecodeError("a group")
        if position > len(data):
            raise DecodeError("truncated")
        fields += 1
        if fields == 100_000:
            counts.add(0, fields)
            fields = 0
        field = message.fields_by_number.get(tag >> 3) if position - value > PIECE_BYTES else None
        if field is not None and wire == _LENGTH_DELIMITED and field.type == FieldDescriptor.TYPE_MESSAGE:
            check(run_start, start)
            counts.add((message.name, field.name) in _ITEM_FIELDS, 1)
            _walk(field.message_type, data[value:position], counts, depth + 1)
            run_start = position
        elif position - run_start > PIECE_BYTES:
            check(run_start, position)
            run_start = position
    check(run_start, len(data))

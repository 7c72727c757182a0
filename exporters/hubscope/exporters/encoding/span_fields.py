"""What the encoder reads of a span, and how: past the SDK's properties where those are known to add nothing.

`ReadableSpan.events`, `links` and `attributes` copy what they return and the others cost a call each: 1.5 µs a span by
its properties, 0.1 µs by the fields behind them, where all the rest of the encoding takes 1.6. Those fields are
private, so they are read only of classes whose properties are the SDK's own, and only if the first span of a class says
the same both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from hubscope.exporters.encoding.attributes import plain

# resource, scope, trace id, span id, trace state (a mapping), the parent's span id or None and whether it is remote,
# name, SpanKind's value, start and end in ns or None, StatusCode's value (None without a status) and description;
# attributes (a mapping), events and links, each followed by how many were dropped. A named tuple would take ten times
# as long to make.
Values: TypeAlias = tuple[Any, ...]
Reader: TypeAlias = Callable[[Any], Values]


def public(span: Any) -> Values:
    """By the properties that every SDK has."""
    context, parent, status = span.get_span_context(), span.parent, span.status
    return (
        span.resource,
        span.instrumentation_scope,
        context.trace_id,
        context.span_id,
        context.trace_state,
        parent.span_id if parent else None,
        bool(parent and parent.is_remote),
        span.name,
        span.kind.value,
        span.start_time,
        span.end_time,
        None if status is None else status.status_code.value,
        None if status is None else status.description,
        plain(span.attributes),
        span.dropped_attributes,
        span.events,
        span.dropped_events,
        span.links,
        span.dropped_links,
    )


def direct(span: Any) -> Values:
    """By the private fields of SDK 1.40 to 1.45; a span made by hand, with other lists than the SDK's, by `public`."""
    try:
        context, parent, status = span._context, span._parent, span._status
        attributes, events, links = span._attributes, span._events, span._links
        return (
            span._resource,
            span._instrumentation_scope,
            context[0],
            context[1],
            context[4]._dict,
            parent[1] if parent else None,
            parent[2] if parent else False,
            span._name,
            span._kind._value_,
            span._start_time,
            span._end_time,
            status._status_code._value_,
            status._description,
            attributes._dict,
            attributes.dropped,
            events._dq,
            events.dropped,
            links._dq,
            links.dropped,
        )
    except (AttributeError, TypeError, IndexError):
        return public(span)


_PROPERTIES: Final = (
    *("resource", "instrumentation_scope", "get_span_context", "parent", "name", "kind", "start_time", "end_time"),
    *("status", "attributes", "dropped_attributes", "events", "dropped_events", "links", "dropped_links"),
)
readers: Final[dict[type, Reader]] = {}  # by class of span; a program has one or two
_MAX_CLASSES: Final = 64  # one that makes classes as it goes must not fill it


def reader_of(span: Any) -> Reader:
    """How to read spans of this one's class."""
    from opentelemetry.sdk.trace import ReadableSpan

    kind, reader = type(span), public
    if all(getattr(kind, name, None) is getattr(ReadableSpan, name) for name in _PROPERTIES) and all(
        _same(*values) for values in zip(direct(span), public(span), strict=True)
    ):
        reader = direct
    if len(readers) < _MAX_CLASSES:
        readers[kind] = reader
    return reader


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return dict(one) == dict(other or {})
    if hasattr(one, "maxlen"):  # a deque
        return list(one) == list(other)
    return bool(one is other or one == other)

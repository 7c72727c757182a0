"""Spans as an ExportTraceServiceRequest (opentelemetry/proto/trace/v1/trace.proto).

As the stock encoder has it: a link's trace state is not sent, nor are a span's trace flags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from hubscope.exporters.encoding import losses, stock
from hubscope.exporters.encoding.attributes import FIELD_3, FIELD_4, FIELD_9, plain
from hubscope.exporters.encoding.groups import ITEM, ITEM_HEADS, Encoded, Groups, encode_each
from hubscope.exporters.encoding.span_fields import Values, reader_of, readers
from hubscope.exporters.encoding.values import utf8
from hubscope.exporters.encoding.wire import FIXED32, FIXED64, LENGTH, VARINT, field, fixed32, fixed64, tag, varint

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_Append = Callable[[bytes], object]

# Span
_TRACE_ID: Final = tag(1, LENGTH) + varint(16)
_SPAN_ID: Final = tag(2, LENGTH) + varint(8)
_TRACE_STATE: Final = tag(3, LENGTH)
_PARENT: Final = tag(4, LENGTH) + varint(8)
_NAME: Final = tag(5, LENGTH)
_KIND: Final = tag(6, VARINT)
_START: Final = tag(7, FIXED64)
_END: Final = tag(8, FIXED64)
_DROPPED_ATTRIBUTES: Final = tag(10, VARINT)
_EVENT: Final = tag(11, LENGTH)
_DROPPED_EVENTS: Final = tag(12, VARINT)
_LINK: Final = tag(13, LENGTH)
_DROPPED_LINKS: Final = tag(14, VARINT)
_STATUS: Final = tag(15, LENGTH)
_FLAGS: Final = tag(16, FIXED32)
# Status
_MESSAGE: Final = tag(2, LENGTH)
_CODE: Final = tag(3, VARINT)
# Span.Event
_EVENT_TIME: Final = tag(1, FIXED64)
_EVENT_NAME: Final = tag(2, LENGTH)
_EVENT_DROPPED: Final = tag(4, VARINT)
# Span.Link: ids as in Span
_LINK_DROPPED: Final = tag(5, VARINT)
_LINK_FLAGS: Final = tag(6, FIXED32)

# SpanFlags: that it is known whether the parent (of a link: the linked span) is remote, and that it is.
_LOCAL: Final = fixed32(0x100)
_REMOTE: Final = fixed32(0x300)

# Names with their kind and the tag of the start that follows: 1,024 of at most 128 characters for each kind. One too
# many (an application that puts ids into names) and all are learnt again.
MAX_NAMES: Final = 1024
MAX_NAME: Final = 128
_names: Final[dict[int, dict[Any, bytes]]] = {kind: {} for kind in range(5)}  # by SpanKind's value

_times: Final = Struct("<QcQ").pack  # start, tag of the end, end


def encode_spans(spans: Iterable[ReadableSpan]) -> Encoded:
    """The request of these spans. One that cannot be written is left out, counted in `losses` and named once."""
    return encode_each(spans, _written, stock.spans, "span", _name_of)


def append_span(span: ReadableSpan, groups: Groups, whole: list[bytes]) -> list[bytes] | None:
    """Write one span into `groups`, in one piece, and say where; for who takes them from there later (`Groups.take`).

    One that only the stock encoder can write becomes a request of its own in `whole`; None then, and where it is left
    out, counted and named as `encode_spans` does.
    """
    try:
        content, resource, scope = _written(span)
        size = len(content)
        items = groups.items_of(resource, scope)
        items.append((ITEM_HEADS[size] if size < 1024 else ITEM + varint(size)) + content)
        return items
    except Exception as error:  # noqa: BLE001 - whatever an odd one raises, the application goes on
        try:
            whole.append(stock.spans([span]))
        except Exception:  # noqa: BLE001 - nobody can write it
            losses.left_out("span", _name_of(span), error)
        return None


def _name_of(span: Any) -> str:
    name: str = getattr(span, "name", type(span).__name__)
    return name


def _written(span: ReadableSpan) -> tuple[bytes, Any, Any]:
    fields = (readers.get(type(span)) or reader_of(span))(span)
    return _span(fields), fields[0], fields[1]


def _span(fields: Values) -> bytes:
    (
        _,
        _,
        trace_id,
        span_id,
        trace_state,
        parent_id,
        remote,
        name,
        kind,
        start_ns,
        end_ns,
        status,
        description,
        attributes,
        dropped_attributes,
        events,
        dropped_events,
        links,
        dropped_links,
    ) = fields
    parts = [_TRACE_ID, trace_id.to_bytes(16, "big"), _SPAN_ID, span_id.to_bytes(8, "big")]
    append = parts.append
    if trace_state:
        append(field(_TRACE_STATE, utf8(",".join([f"{key}={value}" for key, value in trace_state.items()]))))
    if parent_id is not None:
        append(_PARENT)
        append(parent_id.to_bytes(8, "big"))
    append(_names[kind].get(name) or _name(name, kind))
    append(_times(start_ns or 0, _END, end_ns or 0))
    if attributes:
        FIELD_9.write(attributes, append)
    if dropped_attributes:
        append(_DROPPED_ATTRIBUTES + varint(dropped_attributes))
    if events:
        _write_events(events, append)
    if dropped_events:
        append(_DROPPED_EVENTS + varint(dropped_events))
    if links:
        _write_links(links, append)
    if dropped_links:
        append(_DROPPED_LINKS + varint(dropped_links))
    append(_end(status, description, remote) if description or remote or status is None else _ENDS[status])
    return b"".join(parts)


def _name(name: Any, kind: int) -> bytes:
    content = (field(_NAME, utf8(name)) if name else b"") + _KIND + varint(kind + 1) + _START
    known = _names[kind]
    if isinstance(name, str) and len(name) <= MAX_NAME:
        if len(known) >= MAX_NAMES:
            known.clear()
        known[name] = content
    return content


def _end(status: int | None, description: str | None, remote: bool) -> bytes:
    """Status and flags, the last two fields. Without a status, which no SDK makes, only the flags."""
    flags = _FLAGS + (_REMOTE if remote else _LOCAL)
    if status is None:
        return flags
    content = field(_MESSAGE, utf8(description)) if description else b""
    return field(_STATUS, content + (_CODE + varint(status) if status else b"")) + flags


_ENDS: Final = {code: _end(code, None, False) for code in range(3)}  # of nearly every span


def _write_events(events: Iterable[Any], append: _Append) -> None:
    for event in events:
        parts = [_EVENT_TIME, fixed64(event.timestamp or 0)]
        if event.name:
            parts.append(field(_EVENT_NAME, utf8(event.name)))
        FIELD_3.write(plain(event.attributes), parts.append)
        if event.dropped_attributes:
            parts.append(_EVENT_DROPPED + varint(event.dropped_attributes))
        append(field(_EVENT, b"".join(parts)))


def _write_links(links: Iterable[Any], append: _Append) -> None:
    for link in links:
        context = link.context
        parts = [_TRACE_ID, context.trace_id.to_bytes(16, "big"), _SPAN_ID, context.span_id.to_bytes(8, "big")]
        FIELD_4.write(plain(link.attributes), parts.append)
        if link.dropped_attributes:
            parts.append(_LINK_DROPPED + varint(link.dropped_attributes))
        parts.append(_LINK_FLAGS + (_REMOTE if context.is_remote else _LOCAL))
        append(field(_LINK, b"".join(parts)))

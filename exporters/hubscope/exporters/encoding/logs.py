"""Log records as an ExportLogsServiceRequest (opentelemetry/proto/logs/v1/logs.proto)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from hubscope.exporters.encoding import stock
from hubscope.exporters.encoding.attributes import FIELD_6, plain
from hubscope.exporters.encoding.groups import Encoded, encode_each
from hubscope.exporters.encoding.values import STRING, any_value, utf8
from hubscope.exporters.encoding.wire import FIXED32, FIXED64, LENGTH, VARINT, field, fixed32, tag, varint

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord

_TIME: Final = tag(1, FIXED64)
_SEVERITY: Final = tag(2, VARINT)
_SEVERITY_TEXT: Final = tag(3, LENGTH)
_BODY: Final = tag(5, LENGTH)
_DROPPED_ATTRIBUTES: Final = tag(7, VARINT)
_FLAGS: Final = tag(8, FIXED32)
_TRACE_ID: Final = tag(9, LENGTH) + varint(16)
_SPAN_ID: Final = tag(10, LENGTH) + varint(8)
_OBSERVED: Final = tag(11, FIXED64)
_EVENT_NAME: Final = tag(12, LENGTH)

_times: Final = Struct("<cQcQ").pack

# Severity's number and text, which come in pairs: an application has six or so. One too many, and all are learnt again.
MAX_SEVERITIES: Final = 64
_severities: Final[dict[tuple[Any, Any], bytes]] = {}


def encode_logs(records: Iterable[ReadableLogRecord]) -> Encoded:
    """The request of these records. One that cannot be written is left out, counted in `losses` and named once."""
    return encode_each(records, _written, stock.logs, "log record", _name_of)


def _written(readable: ReadableLogRecord) -> tuple[bytes, Any, Any]:
    content = _record(readable.log_record, readable.dropped_attributes)
    return content, readable.resource, readable.instrumentation_scope


def _name_of(readable: Any) -> str:
    """What a person finds a log record by: its event's name, or its logger's."""
    event = getattr(getattr(readable, "log_record", None), "event_name", None)
    scope = getattr(getattr(readable, "instrumentation_scope", None), "name", None)
    return str(event or scope or type(readable).__name__)


def _record(record: Any, dropped_attributes: int) -> bytes:
    number, text, body, attributes = record.severity_number, record.severity_text, record.body, record.attributes
    if number is not None:
        number = getattr(number, "_value_", None)
    parts = [
        _times(_TIME, record.timestamp or 0, _OBSERVED, record.observed_timestamp or 0),
        _severities.get((number, text)) or _severity(number, text),
        _BODY,
    ]
    append = parts.append
    if type(body) is str:
        written = utf8(body)
        content = STRING + varint(len(written)) + written
    else:
        content = any_value(body)
    append(varint(len(content)))
    append(content)
    FIELD_6.write(plain(attributes), append)
    if dropped_attributes:
        append(_DROPPED_ATTRIBUTES + varint(dropped_attributes))
    if record.trace_flags:
        append(_FLAGS + fixed32(record.trace_flags))
    if record.trace_id:
        append(_TRACE_ID)
        append(record.trace_id.to_bytes(16, "big"))
    if record.span_id:
        append(_SPAN_ID)
        append(record.span_id.to_bytes(8, "big"))
    if record.event_name:
        append(field(_EVENT_NAME, utf8(record.event_name)))
    return b"".join(parts)


def _severity(number: Any, text: Any) -> bytes:
    written = _SEVERITY + varint(number) if number else b""
    if text:
        written += field(_SEVERITY_TEXT, utf8(text))
    if len(_severities) >= MAX_SEVERITIES:
        _severities.clear()
    if len(written) <= 128:
        _severities[number, text] = written
    return written

"""Jaeger's JSON (what its HTTP API answers and its UI downloads) as OTLP spans.

The mapping is the reverse of the OpenTelemetry specification's "OpenTelemetry to Jaeger Transformation".
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from hubscope import semconv
from hubscope.errors import BadInputError

_KINDS: Final = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_SCOPE_NAMES: Final = ("otel.scope.name", "otel.library.name")
_SCOPE_VERSIONS: Final = ("otel.scope.version", "otel.library.version")
# Tags that stand for a field of an OTLP span, and are that field again.
_FIELDS: Final = frozenset(
    {
        "span.kind",
        "otel.status_code",
        "otel.status_description",
        "w3c.tracestate",
        *_SCOPE_NAMES,
        *_SCOPE_VERSIONS,
    }
)


def is_jaeger(value: Any) -> bool:
    """Whether parsed JSON is a Jaeger answer, or one trace of it."""
    if not isinstance(value, dict):
        return False
    data = value.get("data")
    if isinstance(data, list):
        return all(isinstance(trace, dict) and "spans" in trace and "processes" in trace for trace in data)
    return "traceID" in value and "spans" in value and "processes" in value


def jaeger_request(value: Any) -> ExportTraceServiceRequest:
    """All its spans as one request. Raises BadInputError naming the span that cannot be read."""
    request = ExportTraceServiceRequest()
    for trace in value.get("data", [value]):
        under: dict[tuple[str, str, str], Any] = {}
        for index, span in enumerate(trace["spans"]):
            try:
                _add_span(request, under, trace["processes"], span)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise BadInputError(f"Jaeger trace {trace.get('traceID')}, span {index}: {problem[:200]}") from error
    return request


def _add_span(request: ExportTraceServiceRequest, under: dict[Any, Any], processes: Any, span: Any) -> None:
    process = processes[span["processID"]] if "processID" in span else span["process"]
    tags = {tag["key"]: tag for tag in span.get("tags") or ()}
    scope = _first(tags, _SCOPE_NAMES), _first(tags, _SCOPE_VERSIONS)
    key = (span.get("processID", ""), *scope)
    spans = under.get(key)
    if spans is None:
        above = request.resource_spans.add(resource=_resource(process))
        inside = above.scope_spans.add(scope=InstrumentationScope(name=scope[0], version=scope[1]))
        spans = under[key] = inside.spans
    start_ns = int(span["startTime"]) * 1000
    trace_id = _identifier(span["traceID"], 16)
    parent, links = _references(span, trace_id)
    spans.add(
        trace_id=trace_id,
        span_id=_identifier(span["spanID"], 8),
        parent_span_id=parent,
        trace_state=_first(tags, ("w3c.tracestate",)),
        name=span["operationName"],
        kind=_KINDS.get(_first(tags, ("span.kind",)), Span.SPAN_KIND_UNSPECIFIED),
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + int(span["duration"]) * 1000,
        attributes=[_attribute(tag) for key, tag in tags.items() if key not in _FIELDS],
        events=[_event(log) for log in span.get("logs") or ()],
        links=links,
        status=_status(tags),
        flags=int(span.get("flags") or 0) & 0xFF,
    )


def _resource(process: Any) -> Resource:
    name = KeyValue(key=semconv.SERVICE_NAME, value=AnyValue(string_value=process["serviceName"]))
    return Resource(attributes=[name, *(_attribute(tag) for tag in process.get("tags") or ())])


def _references(span: Any, trace_id: bytes) -> tuple[bytes, list[Span.Link]]:
    """The first parent in the same trace, and everything else that is referred to."""
    parent = _identifier(span["parentSpanID"], 8) if span.get("parentSpanID") else b""
    links = []
    for reference in span.get("references") or ():
        of_trace, of_span = _identifier(reference["traceID"], 16), _identifier(reference["spanID"], 8)
        if not parent and reference.get("refType") == "CHILD_OF" and of_trace == trace_id:
            parent = of_span
        else:
            links.append(Span.Link(trace_id=of_trace, span_id=of_span))
    return parent, links


def _status(tags: dict[str, Any]) -> Status:
    code = _first(tags, ("otel.status_code",)).upper()
    if code == "ERROR" or (not code and tags.get("error", {}).get("value") in (True, "true")):
        return Status(code=Status.STATUS_CODE_ERROR, message=_first(tags, ("otel.status_description",)))
    return Status(code=Status.STATUS_CODE_OK if code == "OK" else Status.STATUS_CODE_UNSET)


def _event(log: Any) -> Span.Event:
    fields = {field["key"]: field for field in log.get("fields") or ()}
    return Span.Event(
        time_unix_nano=int(log["timestamp"]) * 1000,
        name=_first(fields, ("event",)),
        attributes=[_attribute(field) for key, field in fields.items() if key != "event"],
    )


def _attribute(tag: Any) -> KeyValue:
    kind, value = tag.get("type"), tag["value"]
    if kind == "bool":
        return KeyValue(key=tag["key"], value=AnyValue(bool_value=value in (True, "true")))
    if kind == "int64":
        return KeyValue(key=tag["key"], value=AnyValue(int_value=int(value)))
    if kind == "float64":
        return KeyValue(key=tag["key"], value=AnyValue(double_value=float(value)))
    if kind == "binary":
        return KeyValue(key=tag["key"], value=AnyValue(bytes_value=b64decode(value)))
    return KeyValue(key=tag["key"], value=AnyValue(string_value=str(value)))


def _first(tags: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(tags[key]["value"]) for key in keys if key in tags), "")


def _identifier(text: str, size_bytes: int) -> bytes:
    """Jaeger writes ids without leading zeros."""
    return bytes.fromhex(text.rjust(size_bytes * 2, "0"))

"""A trace as OTLP JSON again, from the lake's rows: any OpenTelemetry backend takes it (`POST /v1/traces`).

The lake keeps attribute values as text with their types beside them (hubscope.lake_schema), so what comes out is what
came in: typed values, events, links, flags, dropped counts, scopes and schema URLs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hubscope.lake_values import any_value

# The columns of otel_traces that a span is made of; the rest are copies (ServiceName, hot columns) or derived (Date).
COLUMNS: Final = (
    "TimestampUnixNano", "Duration", "TraceId", "SpanId", "ParentSpanId", "TraceState", "TraceFlags", "SpanName",
    "SpanKind", "StatusCode", "StatusMessage", "SpanAttributes", "SpanAttributeTypes", "Events", "Links",
    "DroppedAttributesCount", "DroppedEventsCount", "DroppedLinksCount",
    "ResourceAttributes", "ResourceAttributeTypes", "ResourceDroppedAttributesCount", "ResourceSchemaUrl",
    "ScopeName", "ScopeVersion", "ScopeAttributes", "ScopeAttributeTypes", "ScopeDroppedAttrCount", "ScopeSchemaUrl",
)  # fmt: skip

_KINDS: Final = {"Unspecified": 0, "Internal": 1, "Server": 2, "Client": 3, "Producer": 4, "Consumer": 5}
_CODES: Final = {"Unset": 0, "Ok": 1, "Error": 2}


def render(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An ExportTraceServiceRequest in OTLP's JSON form, from rows of otel_traces that hold `COLUMNS`."""
    resources: dict[str, dict[str, Any]] = {}
    scopes: dict[str, dict[str, Any]] = {}
    for row in rows:
        resource = _without_defaults(
            attributes=_attributes(row["ResourceAttributes"], row["ResourceAttributeTypes"]),
            droppedAttributesCount=row["ResourceDroppedAttributesCount"],
        )
        scope = _without_defaults(
            name=row["ScopeName"],
            version=row["ScopeVersion"],
            attributes=_attributes(row["ScopeAttributes"], row["ScopeAttributeTypes"]),
            droppedAttributesCount=row["ScopeDroppedAttrCount"],
        )
        resource_key = json.dumps([resource, row["ResourceSchemaUrl"]], sort_keys=True)
        scope_key = json.dumps([resource_key, scope, row["ScopeSchemaUrl"]], sort_keys=True)
        if resource_key not in resources:
            schema = _without_defaults(schemaUrl=row["ResourceSchemaUrl"])
            resources[resource_key] = {"resource": resource, "scopeSpans": [], **schema}
        if scope_key not in scopes:
            schema = _without_defaults(schemaUrl=row["ScopeSchemaUrl"])
            scopes[scope_key] = {"scope": scope, "spans": [], **schema}
            resources[resource_key]["scopeSpans"].append(scopes[scope_key])
        scopes[scope_key]["spans"].append(_span(row))
    return {"resourceSpans": list(resources.values())}


def _span(row: Mapping[str, Any]) -> dict[str, Any]:
    start_ns = row["TimestampUnixNano"]
    status = _without_defaults(code=_CODES.get(row["StatusCode"], 0), message=row["StatusMessage"])
    return _without_defaults(
        traceId=row["TraceId"],
        spanId=row["SpanId"],
        parentSpanId=row["ParentSpanId"],
        traceState=row["TraceState"],
        flags=row["TraceFlags"],
        name=row["SpanName"],
        kind=_KINDS.get(row["SpanKind"], 0),
        startTimeUnixNano=str(start_ns),
        endTimeUnixNano=str(start_ns + row["Duration"]),
        attributes=_attributes(row["SpanAttributes"], row["SpanAttributeTypes"]),
        droppedAttributesCount=row["DroppedAttributesCount"],
        events=[
            _without_defaults(
                timeUnixNano=str(event["TimestampUnixNano"]),
                name=event["Name"],
                attributes=_attributes(event["Attributes"], event["AttributeTypes"]),
                droppedAttributesCount=event["DroppedAttributesCount"],
            )
            for event in row["Events"] or ()
        ],
        droppedEventsCount=row["DroppedEventsCount"],
        links=[
            _without_defaults(
                traceId=link["TraceId"],
                spanId=link["SpanId"],
                traceState=link["TraceState"],
                attributes=_attributes(link["Attributes"], link["AttributeTypes"]),
                droppedAttributesCount=link["DroppedAttributesCount"],
                flags=link["Flags"],
            )
            for link in row["Links"] or ()
        ],
        droppedLinksCount=row["DroppedLinksCount"],
        status=status,
    )


def _without_defaults(**fields: Any) -> dict[str, Any]:
    """The fields that say something: proto3 leaves out 0, '' and empty lists, and so does its JSON form."""
    return {name: value for name, value in fields.items() if value}


def _attributes(values: Mapping[str, str] | None, types: Mapping[str, str] | None) -> list[dict[str, Any]]:
    kinds = types or {}
    return [{"key": key, "value": any_value(text, kinds.get(key, ""))} for key, text in (values or {}).items()]

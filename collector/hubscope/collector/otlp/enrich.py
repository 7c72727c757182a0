"""Attributes for the resources of a request on the wire, without parsing what stands below them.

A request is a list of resources, each with its attributes, its schema URL and its scopes; only the frame around them is
written anew, so that a megabyte of spans costs a copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from hubscope.collector.otlp.attributes import Added
from hubscope.exporters.encoding.wire import LENGTH, field, tag, varint_at

_RESOURCE = 1  # the field's number in ResourceSpans, ResourceMetrics and ResourceLogs alike


def with_resource_attributes(payload: bytes, added: Added) -> bytes:
    """The request with these attributes on every resource that has none of their key. `payload` is a valid request."""
    if not added:
        return payload
    return b"".join(field(tag(1, LENGTH), _enriched(body, added)) for _, body, _ in _fields(payload))


def _enriched(resources: bytes, added: Added) -> bytes:
    resource = Resource()
    rest = []
    for number, body, whole in _fields(resources):
        if number == _RESOURCE:
            resource.MergeFromString(body)  # several are one, says protobuf
        else:
            rest.append(whole)
    known = {pair.key for pair in resource.attributes}
    resource.attributes.extend(
        KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in added if key not in known
    )
    return b"".join([field(tag(_RESOURCE, LENGTH), resource.SerializeToString()), *rest])


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, body, the whole field) of each field of a message without groups."""
    at = 0
    while at < len(message):
        start = at
        key, at = varint_at(message, at)
        kind = key & 7
        if kind == LENGTH:
            size, at = varint_at(message, at)
        elif kind == 0:
            size = varint_at(message, at)[1] - at
        else:
            size = 8 if kind == 1 else 4
        yield key >> 3, message[at : at + size], message[start : at + size]
        at += size

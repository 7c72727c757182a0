"""OTLP's requests in forms that are parsed with less work: to check all of a request's bytes, to count, to decode.

`MERGED` are OTLP's own messages, except that no message in them is repeated: protobuf then merges all spans into one,
which makes no object a span, and still reads every byte by the same rules (wire types, UTF-8, 100 levels), so that it
refuses what OTLP's own message refuses. Only ids are repeated, for all of them to be looked at afterwards. `COUNTED`
knows nothing but the way down to the items, which stay bytes. Both take 0.39 µs a span (of 365 B, 512 a request);
OTLP's own message, and a second look at the ids, took 0.65.

`STORED` lacks what is not stored: ptars makes a column of every field, and fills it in every row. 1.35 µs a span
instead of 1.52, for seven attributes have three such fields each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ID_SIZES_BYTES: Final = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_ITEMS: Final = ("spans", "log_records", "data_points")
_WAYS: Final = frozenset(
    {"resource_spans", "scope_spans", "resource_logs", "scope_logs", "resource_metrics", "scope_metrics", "metrics"}
    | {"gauge", "sum", "histogram", "exponential_histogram", "summary", *_ITEMS}
)
# Fields of profiles, which a receiver of other signals is to take as absent (opentelemetry-proto, common.proto), and
# of entities, which point at resource attributes.
_NOT_STORED: Final = frozenset({"string_value_strindex", "key_strindex", "entity_refs"})
_REQUESTS: Final = (ExportTraceServiceRequest, ExportMetricsServiceRequest, ExportLogsServiceRequest)
_MERGING: Final = (  # numbers keep their label: a repeated one may come packed, another may not
    FieldDescriptorProto.TYPE_MESSAGE,
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BYTES,
)


def _merge(message: DescriptorProto) -> None:
    for field in message.field:
        if field.name in ID_SIZES_BYTES:
            field.label = FieldDescriptorProto.LABEL_REPEATED
        elif field.type in _MERGING:
            field.label = FieldDescriptorProto.LABEL_OPTIONAL


def _count(message: DescriptorProto) -> None:
    kept = [field for field in message.field if field.name in _WAYS and field.type == FieldDescriptorProto.TYPE_MESSAGE]
    del message.field[:]
    message.field.extend(kept)
    if not kept:
        del message.oneof_decl[:]
    for field in message.field:
        if field.name in _ITEMS:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")


def _store(message: DescriptorProto) -> None:
    kept = [field for field in message.field if field.name not in _NOT_STORED]
    del message.field[:]
    message.field.extend(kept)


def _in_form(change: Callable[[DescriptorProto], None]) -> DescriptorPool:
    """OTLP's files with every message changed, in a pool of its own, where their names meet no others."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for needed in file.dependencies:
            add(needed)
        changed = FileDescriptorProto()
        file.CopyToProto(changed)
        of_file = list(changed.message_type)
        for message in of_file:  # grows while it is walked
            of_file += message.nested_type
            change(message)
        pool.Add(changed)

    for request in _REQUESTS:
        add(request.DESCRIPTOR.file)
    return pool


def _classes(pool: DescriptorPool) -> dict[str, type[Message]]:
    """Every message class of OTLP's files, by its full name."""
    found: dict[str, type[Message]] = {}

    def walk(name: str) -> None:
        if name in found:
            return
        message = pool.FindMessageTypeByName(name)
        found[name] = GetMessageClass(message)
        for field in message.fields:
            if field.message_type is not None:
                walk(field.message_type.full_name)

    for request in _REQUESTS:
        walk(request.DESCRIPTOR.full_name)
    return found


MERGED: Final = _classes(_in_form(_merge))
COUNTED: Final = _classes(_in_form(_count))
STORED: Final = _classes(_in_form(_store))

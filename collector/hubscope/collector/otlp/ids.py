"""Ids of a wrong length, found in a request's bytes: a trace id has 16 B, a span id 8 B, and either may be empty.

The specification calls any other length invalid, and the stock Collector answers INVALID_ARGUMENT or 400 for the whole
request. Asking each parsed span takes a Python object a span and another an id and a list of links: 0.42 µs a span.
Here the bytes are parsed a second time, as messages of our own that know only the ids, and where no message is
repeated: protobuf then merges all spans into one, whose ids are lists. That takes 0.20 µs (spans of 365 B, 512 a
request), and finds what stands in links and exemplars on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.errors import BadInputError

SIZES_BYTES: Final = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_REQUESTS: Final = (ExportTraceServiceRequest, ExportMetricsServiceRequest, ExportLogsServiceRequest)
_HOLDERS: Final = {"Span": "spans", "Link": "links", "LogRecord": "log records", "Exemplar": "exemplars"}

WrongIds = Counter[tuple[str, str, int]]  # what has them, the field, their length -> how many


class _Ids(NamedTuple):
    """All ids of one name in one kind of message, wherever it stands under another one."""

    of: Callable[[Any], list[bytes]]
    holder: str
    name: str
    allowed: frozenset[int]  # bytes


class _Merged(NamedTuple):
    """The message of ours for one of OTLP's, and the ids in it."""

    parse: Callable[[bytes], Message]
    ids: tuple[_Ids, ...]


def check_ids(message: type[Message], payload: bytes) -> None:
    """Raise BadInputError where a valid request of this OTLP message has ids of a wrong length."""
    wrong: WrongIds = Counter()
    add_wrong_ids(message.DESCRIPTOR.full_name, payload, wrong)
    refuse(wrong)


def add_wrong_ids(message: str, data: bytes, wrong: WrongIds) -> None:
    """Count the ids of a wrong length in some fields of the OTLP message of that name.

    An id that is sent twice in a span counts twice.
    """
    merged = _MERGED.get(message)
    if merged is None:
        return
    found = merged.parse(data)
    for ids in merged.ids:
        values = ids.of(found)
        if not ids.allowed.issuperset(map(len, values)):
            lengths = Counter(len(value) for value in values if len(value) not in ids.allowed)
            wrong.update({(ids.holder, ids.name, length): count for length, count in lengths.items()})


def refuse(wrong: WrongIds) -> None:
    """Raise BadInputError that names each field with such ids, how long they are and how many."""
    if not wrong:
        return
    problems = []
    for holder, name in dict.fromkeys((holder, name) for holder, name, _ in wrong):
        lengths = Counter({length: n for (h, i, length), n in wrong.items() if (h, i) == (holder, name)})
        told = ", ".join(f"{length} B" for length, _ in lengths.most_common(3)) + (", …" if len(lengths) > 3 else "")
        problems.append(f"{holder} with a {name} of {told} instead of {SIZES_BYTES[name]} B: {lengths.total()}")
    raise BadInputError(
        "; ".join(problems),
        "a trace id has 16 B and a span id 8 B (in JSON twice as many hexadecimal digits), or it is left empty; "
        "nothing of this request was taken",
    )


def _places(message: Descriptor, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Descriptor]]:
    """Where ids stand under an OTLP message: the fields that lead there with the id's own, and what message has it."""
    for field in message.fields:
        if field.name in SIZES_BYTES:
            yield (field.name,), message
        elif field.message_type is not None and message.full_name not in above:  # an array may hold arrays
            for path, holder in _places(field.message_type, (*above, message.full_name)):
                yield (field.name, *path), holder


def _under(message: Descriptor) -> Iterator[Descriptor]:
    """The message and those under it that have ids."""
    if any(_places(message)):
        yield message
        for field in message.fields:
            if field.message_type is not None:
                yield from _under(field.message_type)


def _merged_messages() -> dict[str, _Merged]:
    messages = {found.full_name: found for request in _REQUESTS for found in _under(request.DESCRIPTOR)}
    file = FileDescriptorProto(name="hubscope/ids.proto", package="hubscope.ids", syntax="proto3")
    for name, message in messages.items():
        ours = file.message_type.add(name=name.replace(".", "_"))
        for field in message.fields:
            if field.name in SIZES_BYTES:
                kind, label = FieldDescriptorProto.TYPE_BYTES, FieldDescriptorProto.LABEL_REPEATED
                ours.field.add(name=field.name, number=field.number, type=kind, label=label)
            elif field.message_type is not None and field.message_type.full_name in messages:
                kind, label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_OPTIONAL
                inner = f".{file.package}.{field.message_type.full_name.replace('.', '_')}"
                ours.field.add(name=field.name, number=field.number, type=kind, label=label, type_name=inner)
    pool = DescriptorPool()  # of its own: nothing else can meet these names
    pool.Add(file)
    merged = {}
    for name, message in messages.items():
        ids = tuple(
            _Ids(attrgetter(".".join(path)), _HOLDERS[at.name], path[-1], frozenset({0, SIZES_BYTES[path[-1]]}))
            for path, at in _places(message)
        )
        ours_class = GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name.replace('.', '_')}"))
        merged[name] = _Merged(ours_class.FromString, ids)
    return merged


_MERGED: Final = _merged_messages()

"""Requests with every field of every message set, made by walking the protocol's descriptors.

Nothing is listed by name, so a field that a newer version of the protocol adds is set as well, and whoever compares
what arrived will miss it.
"""

from __future__ import annotations

import random
import string
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

ID_BYTES: Final = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
DAY_NS: Final = 86_400 * 10**9
START_NS: Final = 20_000 * DAY_NS  # one day for all, or each request would be a partition of the lake of its own
ANY_VALUE: Final = "opentelemetry.proto.common.v1.AnyValue"
# Development fields of a signal that is not stored (profiles): an index into a table that no other request has.
NOT_SENT: Final = frozenset({"string_value_strindex", "key_strindex"})


def fill(message: Message, chance: random.Random, repeat: int = 2, depth: int = 0) -> Any:
    """Set every field of `message`, of a oneof one, with values that differ from the defaults; returns it."""
    chosen = {
        oneof.name: chance.choice([field for field in oneof.fields if field.name not in NOT_SENT]).name
        for oneof in message.DESCRIPTOR.oneofs
    }
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if field.name in NOT_SENT or (oneof is not None and chosen[oneof.name] != field.name):
            continue
        set_field(message, field, chance, repeat, depth)
    return message


def set_field(message: Any, field: Any, chance: random.Random, repeat: int = 2, depth: int = 0) -> None:
    """Set one field: `repeat` values where it is repeated; values inside values end after two levels."""
    if field.message_type is not None:
        deeper = depth + (message.DESCRIPTOR.full_name == ANY_VALUE)
        getattr(message, field.name).SetInParent() if not field.is_repeated else None
        if deeper > 2:
            return
        if not field.is_repeated:
            fill(getattr(message, field.name), chance, repeat, deeper)
            return
        for index in range(repeat):
            member = fill(getattr(message, field.name).add(), chance, repeat, deeper)
            if "key" in member.DESCRIPTOR.fields_by_name:  # one list has each key once
                member.key = f"{member.key}.{index}"
    elif field.is_repeated:
        getattr(message, field.name).extend(scalar(field, chance) for _ in range(repeat))
    else:
        setattr(message, field.name, scalar(field, chance))


def scalar(field: Any, chance: random.Random) -> Any:
    """A value of the field's type that is not its default."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(ID_BYTES.get(field.name, chance.randint(1, 9)))
    if field.type == FieldDescriptor.TYPE_STRING:
        return "".join(chance.choices(string.ascii_letters + "é日😀 ", k=chance.randint(1, 12)))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([value.number for value in field.enum_type.values if value.number])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.uniform(-1e9, 1e9)
    if field.name.endswith("unix_nano"):
        return START_NS + chance.randrange(1, DAY_NS // 2)
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT32:
        return chance.randint(1, 2**32 - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT32:
        return chance.choice([-1, 1]) * chance.randint(1, 2**31 - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64:
        return chance.randint(1, 2**63 - 1)
    return chance.choice([-1, 1]) * chance.randint(1, 2**63 - 1)

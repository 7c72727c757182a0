"""Damage: what is done to valid requests before they are sent."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from google.protobuf import json_format
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, Signal
from tests.collector.everything import ID_BYTES, fill

ODD_BYTES: Final = (
    b"",
    b"\x00",
    b"\xff" * 10,
    b"\x0a\x00" * 50,
    b"\x80" * 12,
    b"\x0b",
    b"{",
    b"\xed\xa0\x80",
    bytes(64),
)
ODD_VALUES: Final = (
    None,
    True,
    0,
    -1,
    1.5,
    2**64,
    10**400,
    "",
    "x",
    "NaN",
    "\ud800",
    "1e999",
    [],
    [None],
    {},
    {"": {}},
    [[]],
)


def seeds(chance: random.Random, count: int = 90) -> list[tuple[Signal, bytes, bytes]]:
    """Valid requests: signal, protobuf and the same as OTLP/JSON."""
    found = []
    for index in range(count):
        signal = list(SIGNALS.values())[index % 3]
        request = fill(signal.request(), chance, repeat=2 if index < 3 else 1)
        found.append((signal, request.SerializeToString(), to_json(request)))
    return found


def to_json(request: Any) -> bytes:
    """OTLP/JSON: ProtoJSON with enums as integers and ids in hex."""
    value = json.loads(json_format.MessageToJson(request, use_integers_for_enums=True))
    return json.dumps(_hex_ids(value, request)).encode()


def _hex_ids(value: Any, message: Any) -> Any:
    for field, held in message.ListFields():
        if field.name in ID_BYTES:
            value[field.json_name] = held.hex()
        elif field.message_type is not None:
            inner = value[field.json_name]
            for part, member in zip(inner, held, strict=True) if field.is_repeated else ((inner, held),):
                _hex_ids(part, member)
    return value


def flip(data: bytes, chance: random.Random) -> bytes:
    """A few bits."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3, 20))):
        if found:
            found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def truncate(data: bytes, chance: random.Random) -> bytes:
    """Its beginning, or its end."""
    at = chance.randint(0, len(data))
    return data[:at] if chance.random() < 0.7 else data[at:]


def splice(data: bytes, chance: random.Random) -> bytes:
    """A piece of it somewhere else, or twice, or many times."""
    start = chance.randint(0, len(data))
    piece = data[start : start + chance.choice((1, 4, 30, 300))] * chance.choice((1, 1, 2, 50))
    at = chance.randint(0, len(data))
    return data[:at] + piece + data[at + chance.choice((0, len(piece))) :]


def insert(data: bytes, chance: random.Random) -> bytes:
    """Something odd in the middle."""
    at = chance.randint(0, len(data))
    return data[:at] + chance.choice(ODD_BYTES) + data[at:]


def lie(data: bytes, chance: random.Random) -> bytes:
    """A number, perhaps a length, that is another."""
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + chance.choice((b"\x00", b"\x7f", b"\xff\x7f", b"\xff\xff\xff\xff\x0f")) + data[at + 1 :]


BYTES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (flip, flip, truncate, splice, insert, lie)


def deep(signal: Signal, chance: random.Random) -> tuple[bytes, bytes]:
    """A value nested 1 to 400 levels deep, as protobuf and JSON."""
    levels = chance.choice((1, 20, 44, 45, 46, 47, 48, 49, 50, 51, 100, 400))
    inner = AnyValue(string_value="end").SerializeToString()
    for _ in range(levels):
        inner = field(chance.choice((5, 5, 6)), field(1, inner))
    attribute = field(1, b"deep") + field(2, inner)
    body = field(1, field(1, field(1, attribute)))  # resource, its attributes
    text = '{"stringValue":"end"}'
    for _ in range(levels):
        text = '{"arrayValue":{"values":[' + text + "]}}"
    return body, f'{{"{signal.key}":[{{"resource":{{"attributes":[{{"key":"deep","value":{text}}}]}}}}]}}'.encode()


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def damage_json(text: bytes, chance: random.Random) -> bytes:
    """A value replaced, a key renamed or doubled, a member dropped, somewhere in the tree."""
    try:
        value = json.loads(text)
    except RecursionError:
        return flip(text, chance)
    for _ in range(chance.choice((1, 1, 2, 5))):
        here, parent = value, None
        key: Any = None
        while isinstance(here, dict | list) and here and (parent is None or chance.random() < 0.93):
            parent, key = here, chance.choice(list(here)) if isinstance(here, dict) else chance.randrange(len(here))
            here = parent[key]
        if parent is None:
            return json.dumps(chance.choice(ODD_VALUES)).encode()
        what = chance.random()
        if what < 0.6:
            parent[key] = deepcopy(chance.choice(ODD_VALUES))  # a later round may go on inside it
        elif what < 0.8 and isinstance(parent, dict):
            parent[chance.choice(("name", "value", "intValue", "trace_id", key + "x", key.upper()))] = parent.pop(key)
        else:
            del parent[key]
    return json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def headers(head: bytes, chance: random.Random) -> bytes:
    """The head of an HTTP request, damaged."""
    kind = chance.randrange(6)
    lines = head.split(b"\r\n")
    if kind == 0:
        return flip(head, chance)
    if kind == 1:
        return insert(head, chance)
    if kind == 2:
        lines.insert(1, chance.choice(lines[1:] or [b"X: y"]))
    elif kind == 3:
        lines.insert(1, b"X-Long: " + b"y" * chance.choice((10, 1000, 60_000, 70_000)))
    elif kind == 4:
        odd = (
            b"Transfer-Encoding: chunked",
            b"Content-Length: 5",
            b"Expect: 100-continue",
            b"Upgrade: h2c\r\nConnection: upgrade",
            b"Connection: close",
            b"Content-Encoding: br",
            b"Content-Type: application/json",
            b"Host: other",
        )
        lines.insert(1, chance.choice(odd))
    else:
        lines[0] = chance.choice(
            (
                b"GET /v1/traces HTTP/1.1",
                b"POST * HTTP/1.1",
                b"POST http://a/v1/logs HTTP/1.1",
                b"POST / HTTP/1.0",
                b"\x00",
                b"",
            )
        )
    return b"\r\n".join(lines)


def compressed(body: bytes, chance: random.Random) -> bytes:
    """A gzip body, damaged or not: cut, flipped, twice, with garbage or another member behind, or a small bomb."""
    kind = chance.randrange(7)
    if kind == 6:
        return gzip.compress(bytes(chance.choice((10_000, 1_000_000, 3_000_000))), 1)
    data = gzip.compress(body, 1)
    if kind < 2:
        return data
    if kind == 2:
        return gzip.compress(data, 1)
    if kind == 3:
        return data + chance.choice((b"garbage", bytes(9), data, data[:10]))
    return chance.choice((flip, truncate))(data, chance)


KINDS: Final = {"json": JSON, "protobuf": PROTOBUF}

"""Attribute values: every kind, what the caches must not confuse, and what the stock encoder would lose."""

from __future__ import annotations

import array
import enum
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_value
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValueList

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.attributes import AttributeList, plain
from hubscope.exporters.encoding.values import any_value
from hubscope.exporters.encoding.wire import varint, varints
from tests.exporters import encoding_items as items


class _Text(str):
    __slots__ = ()


class _Color(enum.StrEnum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


class _Float(float):
    __slots__ = ()


def _written(attributes: Mapping[Any, Any], to: AttributeList | None = None) -> dict[str, AnyValue]:
    """The attributes as a parser of protobuf reads them; field 1 of a KeyValueList is a list of attributes."""
    parts: list[bytes] = []
    (to or AttributeList(1)).write(plain(attributes), parts.append)
    return {pair.key: pair.value for pair in KeyValueList.FromString(b"".join(parts)).values}


@given(items.VALUES)
def test_a_value_is_what_the_stock_encoder_makes_of_it(value: Any) -> None:
    """Every kind of value, nested in sequences and mappings, parses to the stock encoder's AnyValue."""
    assert items.canonical(AnyValue.FromString(any_value(value))) == items.canonical(_encode_value(value))


@pytest.mark.parametrize(
    "value",
    [
        _Text("text"),
        _Color.RED,
        _Level.HIGH,
        _Float(1.5),
        bytearray(b"ab"),
        memoryview(b"ab"),
        range(3),
        array.array("d", [1.5]),
        MappingProxyType({"a": 1}),
        {1: "an int key"},
        (),
        {},
        2**63 - 1,
        -(2**63),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_and_relatives_of_the_kinds(value: Any) -> None:
    """Subclasses of str, int and float, and whatever is a sequence or a mapping, are as the stock encoder has them."""
    assert _written({"key": value})["key"] == _encode_value(value)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), items.SCALARS), max_size=40))
def test_a_cache_confuses_no_values(pairs: list[tuple[str, Any]]) -> None:
    """Equal values of different types (1, 1.0, True) and the two zeros, one after the other, keep type and sign."""
    one = AttributeList(1)
    for key, value in pairs:
        written = _written({key: value}, one)[key]
        assert items.canonical(written) == items.canonical(_encode_value(value))


def test_lone_surrogates_are_replaced() -> None:
    """Text that is no Unicode gets replacement characters, a pair of surrogates what it means; both are counted."""
    before = losses.counts["text replaced"]
    written = _written({"lone": "a\ud800b", "pair": "\ud83d\ude00", "k\udfff": 1})
    assert written["lone"].string_value == "a\ufffdb"
    assert written["pair"].string_value == "😀"
    assert written["k\ufffd"].int_value == 1
    assert losses.counts["text replaced"] == before + 3


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
def test_integers_beyond_64_bits_are_text(number: int) -> None:
    """As the specification asks: the stock encoder leaves the attribute out."""
    before = losses.counts["integer replaced"]
    assert _written({"big": number})["big"].string_value == str(number)
    assert losses.counts["integer replaced"] == before + 1


def test_an_odd_attribute_costs_no_other() -> None:
    """An attribute that cannot be written is left out and counted; those beside it are sent."""

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    before = losses.counts["attribute left out"]
    assert set(_written({"a": 1, "odd": Unspeakable(), "b": 2})) == {"a", "b"}
    assert losses.counts["attribute left out"] == before + 1


@given(st.integers(0, 2**64 - 1) | st.integers(0, 2**15), st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300)))
def test_varints_are_read_back(number: int, numbers: list[int]) -> None:
    """Integers of every length, alone and packed, are what they were when read seven bits at a time."""

    def read(written: bytes) -> list[int]:
        found, shift = [0], 0
        for byte in written:
            found[-1] |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                found.append(0)
                shift = 0
        return found[:-1]

    assert read(varint(number)) == [number]
    assert len(varint(number)) == max(1, -(-number.bit_length() // 7))
    assert read(varints(numbers)) == numbers


def test_importing_the_encoders_loads_neither_protobuf_nor_the_sdk() -> None:
    """An application that takes the encoder pays for the encoder."""
    code = (
        "import sys\n"
        "from hubscope.exporters.encoding import logs, metrics, spans\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'google', 'opentelemetry', 'grpc', 'requests'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

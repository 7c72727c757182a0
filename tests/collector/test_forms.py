"""The merged form of a request is refused where OTLP's own message is, and the counted form has as many items."""

from __future__ import annotations

import random

from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from hubscope.collector.otlp.forms import COUNTED, MERGED
from hubscope.collector.otlp.requests import KINDS, Kind
from tests.collector.everything import fill

kinds = st.sampled_from(KINDS)
changes = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])), max_size=4
)


def accepts(message: type[Message], payload: bytes) -> bool:
    """Whether protobuf takes the bytes for such a message."""
    try:
        message.FromString(payload)
    except DecodeError:
        return False
    return True


@settings(max_examples=1000)
@given(kinds, st.integers(0, 9), changes)
def test_the_same_bytes_are_refused(kind: Kind, seed: int, changes: list[tuple[int, int, str]]) -> None:
    """Whatever bytes of a request with every field set are changed, left out or added."""
    payload = bytearray(fill(kind.message(), random.Random(seed)).SerializeToString())
    for place, byte, how in changes:
        at = place % max(len(payload), 1)
        payload[at : at + (how != "insert")] = b"" if how == "cut" else bytes((byte,))
    name = kind.message.DESCRIPTOR.full_name
    assert accepts(MERGED[name], bytes(payload)) == accepts(kind.message, bytes(payload))
    if accepts(kind.message, bytes(payload)):
        assert kind.count(COUNTED[name].FromString(bytes(payload))) == kind.count(
            kind.message.FromString(bytes(payload))
        )

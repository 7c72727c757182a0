"""What the encoder's tests draw: the SDK's own objects with every kind of value."""

from __future__ import annotations

from google.protobuf.message import Message
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._internal import _encode_value
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope


def _knows_none() -> bool:
    try:
        return _encode_value(None) is not None
    except Exception:  # noqa: BLE001 - an old one raises nothing more special
        return False


# Older SDKs (1.40) refuse None, or leave the field away; the encoder writes an empty AnyValue, as newer ones do.
NONES = st.none() if _knows_none() else st.nothing()

# Where a cache by equality would be wrong, and where a length takes one byte more.
_TRAPS = st.sampled_from(
    [True, 1, 1.0, False, 0, 0.0, -0.0, "", "1", "é" * 31, "x" * 64, "x" * 65, "y" * 125, "z" * 20_000, -1, 127, 128]
)
SCALARS = st.one_of(
    _TRAPS,
    NONES,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["http.route", "n", "é", "k" * 200]) | st.text(min_size=1, max_size=10)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=6)
SIMPLE = st.dictionaries(KEYS, st.text(max_size=9) | st.integers(-5, 5), max_size=3)
NANOSECONDS = st.integers(0, 2**64 - 1)
TRACE_IDS = st.integers(1, 2**128 - 1)
SPAN_IDS = st.integers(1, 2**64 - 1)
DROPPED = st.sampled_from([0, 0, 1, 200, 70_000])


@st.composite
def bounded(draw: st.DrawFn) -> BoundedAttributes:
    """Attributes as a span, an event or a log record holds them."""
    attributes = BoundedAttributes(immutable=False)
    attributes._dict = draw(ATTRIBUTES)  # older SDKs drop what newer ones take
    attributes.dropped = draw(DROPPED)
    return attributes


@st.composite
def owners(draw: st.DrawFn) -> tuple[list[Resource], list[InstrumentationScope | None]]:
    """Resources and scopes for a batch's items, some equal to another one without being it."""
    resources = [
        Resource({**draw(SIMPLE), "service.instance.id": f"{number}"}, draw(st.sampled_from([None, "https://schema"])))
        for number in range(2)
    ]
    scopes: list[InstrumentationScope | None] = [
        InstrumentationScope(f"scope {number}", draw(st.sampled_from([None, "", "1.0"])), f"{number}", draw(SIMPLE))
        for number in range(2)
    ]
    resources.append(Resource(dict(resources[0].attributes), resources[0].schema_url))
    first = scopes[0]
    assert first is not None
    scopes.append(InstrumentationScope(first.name, first.version, first.schema_url, dict(first.attributes or {})))
    return resources, [*scopes, None]


def canonical(message: Message) -> bytes:
    """Equal for equal messages, NaN included."""
    return message.SerializeToString(deterministic=True)

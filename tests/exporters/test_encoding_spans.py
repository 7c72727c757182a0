"""Spans written by our encoder say what the stock encoder's say, and one odd span costs no other."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as stock
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from hubscope.exporters.encoding import attributes as attribute_lists
from hubscope.exporters.encoding import losses, span_fields, spans
from hubscope.exporters.encoding.spans import encode_spans
from tests.exporters import encoding_items as items

_STATES = st.sampled_from([None, TraceState([("hub", "a:1"), ("other", "b")])])
_CONTEXTS = st.builds(SpanContext, items.TRACE_IDS, items.SPAN_IDS, st.booleans(), st.just(TraceFlags(1)), _STATES)
_EVENTS = st.builds(Event, st.text(max_size=9), items.bounded(), items.NANOSECONDS)
_LINKS = st.builds(Link, _CONTEXTS, items.bounded())
_STATUSES = st.builds(Status, st.just(StatusCode.ERROR), st.text(max_size=9)) | st.builds(
    Status, st.sampled_from(StatusCode)
)


@st.composite
def _listed(draw: st.DrawFn, elements: st.SearchStrategy[Any]) -> Any:
    """A span's list of events or links: the SDK's, or one that somebody made by hand."""
    drawn = draw(st.lists(elements, max_size=2))
    if draw(st.booleans()):
        return tuple(drawn)
    bounded = BoundedList.from_seq(5, drawn)
    bounded.dropped = draw(items.DROPPED)
    return bounded


@st.composite
def _batches(draw: st.DrawFn) -> list[ReadableSpan]:
    resources, scopes = draw(items.owners())
    return draw(
        st.lists(
            st.builds(
                ReadableSpan,
                st.sampled_from(["", "query", "n" * 200]) | st.text(max_size=9),
                context=_CONTEXTS,
                parent=st.none() | _CONTEXTS,
                resource=st.sampled_from(resources),
                attributes=items.bounded() | items.ATTRIBUTES | st.none(),
                events=_listed(_EVENTS),
                links=_listed(_LINKS),
                kind=st.sampled_from(SpanKind),
                status=_STATUSES,
                start_time=st.none() | items.NANOSECONDS,
                end_time=st.none() | items.NANOSECONDS,
                instrumentation_scope=st.sampled_from(scopes),
            ),
            max_size=5,
        )
    )


def _message(payload: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(payload)


def _finished(make: Any, resource: Resource | None = None) -> Sequence[ReadableSpan]:
    """The spans that `make(tracer)` ends, as an exporter gets them."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=resource or Resource({"service.name": "hub"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    make(provider.get_tracer("hub.recall", "2.0", "https://schema"))
    return memory.get_finished_spans()


def _plain_span(name: Any = "query", **fields: Any) -> ReadableSpan:
    fields.setdefault("context", SpanContext(5, 6, False))
    return ReadableSpan(name, resource=Resource({"service.name": "hub"}), start_time=1, end_time=2, **fields)


@given(_batches())
def test_spans_say_what_the_stock_encoder_says(batch: list[ReadableSpan]) -> None:
    """Any spans with any attributes, events, links and status parse to the stock encoder's message, groups in order."""
    encoded = encode_spans(batch)
    assert items.canonical(_message(encoded.payload)) == items.canonical(stock(batch))
    assert (encoded.items, encoded.left_out) == (len(batch), 0)


def test_spans_of_a_tracer_are_read_past_their_properties() -> None:
    """What a tracer makes, exceptions, links and children included, is read directly and says the same."""

    def make(tracer: Any) -> None:
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER, attributes={"n": 1, "fresh": True}) as root:
            link = Link(root.get_span_context(), {"why": "retry"})
            with tracer.start_as_current_span("query", links=[link]) as child:
                child.set_attribute("rows", (1, 2, 3))
                child.record_exception(ValueError("no such table"))
                child.set_status(Status(StatusCode.ERROR, "no such table"))

    finished = _finished(make)
    assert _message(encode_spans(finished).payload) == stock(finished)
    assert span_fields.readers[ReadableSpan] is span_fields.direct


def test_a_span_as_a_person_reads_it() -> None:
    """The bytes of one span, field for field."""
    span = _plain_span(
        context=SpanContext(0x0102030405060708090A0B0C0D0E0F10, 0x1112131415161718, False),
        parent=SpanContext(0x0102030405060708090A0B0C0D0E0F10, 0x2122232425262728, True),
        kind=SpanKind.CLIENT,
        attributes={"db.system": "sqlite", "rows": 300, "ratio": 0.5, "fresh": True},
        status=Status(StatusCode.ERROR, "locked"),
        instrumentation_scope=InstrumentationScope("hub", "1"),
    )
    expected = """
        0a bf 01                                              # resource_spans
        0a 15                                                 #   resource
        0a 13 0a 0c 73 65 72 76 69 63 65 2e 6e 61 6d 65       #     attribute "service.name"
              12 03 0a 01 68                                  #       "h"
        12 a5 01                                              #   scope_spans
        0a 08 0a 03 68 75 62 12 01 31                         #     scope "hub", version "1"
        12 98 01                                              #     span
        0a 10 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 #       trace_id
        12 08 11 12 13 14 15 16 17 18                         #       span_id
        22 08 21 22 23 24 25 26 27 28                         #       parent_span_id
        2a 05 71 75 65 72 79                                  #       name "query"
        30 03                                                 #       kind CLIENT
        39 01 00 00 00 00 00 00 00                            #       start
        41 02 00 00 00 00 00 00 00                            #       end
        4a 15 0a 09 64 62 2e 73 79 73 74 65 6d                #       attribute "db.system"
              12 08 0a 06 73 71 6c 69 74 65                   #         "sqlite"
        4a 0b 0a 04 72 6f 77 73 12 03 18 ac 02                #       attribute "rows" 300
        4a 12 0a 05 72 61 74 69 6f                            #       attribute "ratio"
              12 09 21 00 00 00 00 00 00 e0 3f                #         0.5
        4a 0b 0a 05 66 72 65 73 68 12 02 10 01                #       attribute "fresh" true
        7a 0a 12 06 6c 6f 63 6b 65 64 18 02                   #       status ERROR "locked"
        85 01 00 03 00 00                                     #       flags: has a parent known to be remote
    """
    span._resource = Resource({"service.name": "h"})
    payload = encode_spans([span]).payload
    lines = [line.split("#")[0] for line in expected.splitlines()]
    assert payload == bytes.fromhex("".join(lines))
    assert _message(payload) == stock([span])


def test_a_property_of_a_subclass_is_believed() -> None:
    """A span whose class shows other attributes than it holds is sent as it shows itself."""

    class Redacted(ReadableSpan):
        @property
        def attributes(self) -> Any:
            return {key: "gone" if key == "password" else value for key, value in super().attributes.items()}

    harmless, secret = (
        Redacted(
            "query",
            SpanContext(5, 6, False),
            resource=Resource({}),
            attributes=BoundedAttributes(attributes=given),
            events=BoundedList(1),
            links=BoundedList(1),
        )
        for given in ({"n": 1}, {"password": "hunter2"})
    )
    payload = encode_spans([harmless, secret]).payload  # the first one shows what it holds
    assert _message(payload) == stock([harmless, secret])
    assert b"hunter2" not in payload
    assert b"gone" in payload


def test_what_only_looks_like_a_span_is_sent() -> None:
    """An object with a span's properties is written as the stock encoder writes it."""
    real = _plain_span(attributes={"n": 1})
    names = [name for name in dir(ReadableSpan) if not name.startswith("_") and name != "instrumentation_info"]
    double = SimpleNamespace(**{name: getattr(real, name) for name in names})
    assert _message(encode_spans([double]).payload) == stock([real])


@pytest.mark.parametrize("name", ["first", "second"])
def test_an_odd_span_costs_no_other(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A span that nobody can write is left out and counted; it is named once on the log, and the others are sent."""
    odd = f"span that no one can write, {name}"
    good = _plain_span()
    before = losses.counts["span left out"]
    with caplog.at_level(logging.WARNING, "hubscope"):
        for _ in range(3):
            encoded = encode_spans([_plain_span(odd, context=SpanContext(2**128, 6, False)), good])
            assert _message(encoded.payload) == stock([good])
            assert (encoded.items, encoded.left_out) == (1, 1)
    assert losses.counts["span left out"] == before + 3
    assert [record.getMessage().count(odd) for record in caplog.records] == [1]


def test_nothing_makes_an_empty_request() -> None:
    """No spans, or only such as cannot be written, are an empty payload: nothing to send."""
    assert encode_spans([]) == (b"", 0, 0)
    assert encode_spans([_plain_span("none can write this", context=SpanContext(2**128, 6, False))]) == (b"", 0, 1)


def test_spans_of_a_generator_keep_their_resources() -> None:
    """Spans that are freed as they are read, each with a resource of its own, are grouped by what the resources say."""

    def make(number: int) -> ReadableSpan:
        return ReadableSpan("query", SpanContext(5, 6, False), resource=Resource({"n": number % 3}))

    expected = stock([make(number) for number in range(300)])
    assert _message(encode_spans(make(number) for number in range(300)).payload) == expected


def test_what_is_kept_is_bounded() -> None:
    """Keys, values, names, resources and scopes without end leave every cache within its bound, and are sent right."""
    for first in range(0, 6000, 500):
        batch = [
            ReadableSpan(
                f"query {number}",
                SpanContext(5, 6, False),
                resource=Resource({"n": number}),
                attributes={f"key {number}": 1, "id": f"{number}", "n": number},
                instrumentation_scope=InstrumentationScope(f"scope {number}"),
            )
            for number in range(first, first + 500)
        ]
        assert _message(encode_spans(batch).payload) == stock(batch)
    keys = attribute_lists.FIELD_9._keys
    assert 0 < len(keys) <= attribute_lists.MAX_KEYS
    assert all(len(key.fields) <= attribute_lists.MAX_VALUES for key in keys.values())
    assert 0 < len(spans._names[0]) <= spans.MAX_NAMES
    from hubscope.exporters.encoding import groups

    assert 0 < len(groups._resources) <= groups.MAX_KEPT
    assert 0 < len(groups._scopes) <= groups.MAX_KEPT


def test_threads_encode_side_by_side() -> None:
    """Eight threads that fill and empty the same caches all write what one alone writes."""
    chance = random.Random(1)
    batches = [
        [
            _plain_span(f"query {chance.randrange(3000)}", attributes={f"key {chance.randrange(600)}": number})
            for number in range(200)
        ]
        for _ in range(8)
    ]
    expected = [stock(batch) for batch in batches]
    wrong: list[int] = []
    together = threading.Barrier(8)

    def encode(number: int) -> None:
        together.wait(10)
        for _ in range(10):
            if _message(encode_spans(batches[number]).payload) != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=encode, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []

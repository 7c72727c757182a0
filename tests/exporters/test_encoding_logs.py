"""Log records written by our encoder say what the stock encoder's say, and one odd record costs no other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as stock
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import TraceFlags

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.logs import encode_logs
from tests.exporters import encoding_items as items


def _record(trace_id: int = 0, span_id: int = 0, trace_flags: int = 0, **fields: Any) -> LogRecord:
    fields.setdefault("observed_timestamp", 2)
    attributes = fields.pop("attributes", None)
    record = LogRecord(**fields)
    record.trace_id, record.span_id, record.trace_flags = trace_id, span_id, TraceFlags(trace_flags)
    record.attributes = attributes
    return record


_RECORDS = st.builds(
    _record,
    st.just(0) | items.TRACE_IDS,
    st.just(0) | items.SPAN_IDS,
    st.integers(0, 255),
    timestamp=st.none() | items.NANOSECONDS,
    observed_timestamp=items.NANOSECONDS,
    severity_text=st.none() | st.sampled_from(["", "INFO", "s" * 300]),
    severity_number=st.none() | st.sampled_from(SeverityNumber),
    body=items.VALUES,
    attributes=items.bounded() | items.ATTRIBUTES | st.none(),
    event_name=st.none() | st.text(max_size=9),
)


@st.composite
def _batches(draw: st.DrawFn) -> list[ReadableLogRecord]:
    resources, scopes = draw(items.owners())
    owned = st.builds(ReadableLogRecord, _RECORDS, st.sampled_from(resources), st.sampled_from(scopes))
    return draw(st.lists(owned, max_size=5))


def _readable(**fields: Any) -> ReadableLogRecord:
    return ReadableLogRecord(_record(**fields), Resource({"service.name": "hub"}), InstrumentationScope("hub.recall"))


def _message(payload: bytes) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest.FromString(payload)


def _bodies(records: Sequence[ReadableLogRecord]) -> list[AnyValue]:
    encoded = encode_logs(records)
    assert (encoded.items, encoded.left_out) == (len(records), 0)
    return [record.body for record in _message(encoded.payload).resource_logs[0].scope_logs[0].log_records]


@given(_batches())
def test_log_records_say_what_the_stock_encoder_says(batch: list[ReadableLogRecord]) -> None:
    """Any records with bodies and attributes of every kind parse to the stock encoder's message, groups in order."""
    encoded = encode_logs(batch)
    assert items.canonical(_message(encoded.payload)) == items.canonical(stock(batch))
    assert (encoded.items, encoded.left_out) == (len(batch), 0)


def test_a_body_that_the_stock_encoder_refuses_is_sent_as_text() -> None:
    """An object of another kind in a body is its text, where the stock encoder loses the whole batch."""

    class Memory:
        def __str__(self) -> str:
            return "a memory"

    before = losses.counts["value of type replaced"]
    alone, inner = _bodies([_readable(body=Memory()), _readable(body={"of": [Memory(), 1]})])
    assert alone == AnyValue(string_value="a memory")
    assert [
        value.string_value or value.int_value for value in inner.kvlist_value.values[0].value.array_value.values
    ] == [
        "a memory",
        1,
    ]
    assert losses.counts["value of type replaced"] == before + 2


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_body_nested_without_end_can_be_received(kind: str) -> None:
    """A body that contains itself, or is deeper than a receiver parses, ends in text; the batch can be parsed."""
    itself: Any = []
    itself += [itself, itself]
    deep: Any = "ground"
    for _ in range(200):
        deep = [deep] if kind == "list" else {"in": deep}
    assert len(_bodies([_readable(body=itself), _readable(body=deep), _readable(body="plain")])) == 3


def test_an_odd_record_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A record that nobody can write is left out and counted, named once by its event; the others are sent."""

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    good, odd = _readable(body="good"), _readable(body=Unspeakable(), event_name="unspeakable event")
    before = losses.counts["log record left out"]
    with caplog.at_level(logging.WARNING, "hubscope"):
        for _ in range(2):
            encoded = encode_logs([odd, good])
            assert _message(encoded.payload) == stock([good])
            assert (encoded.items, encoded.left_out) == (1, 1)
    assert losses.counts["log record left out"] == before + 2
    assert len([record for record in caplog.records if "'unspeakable event'" in record.getMessage()]) == 1

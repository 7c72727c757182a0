"""Large requests are validated in pieces: the same verdict and count as in one, and a bounded cost."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.otlp import large
from hubscope.collector.otlp.requests import KINDS, count_items
from hubscope.errors import BadInputError


def _requests(chance: random.Random) -> list[Any]:
    """One of each signal, with many items, some of them larger than a piece."""
    traces, metrics, logs = ExportTraceServiceRequest(), ExportMetricsServiceRequest(), ExportLogsServiceRequest()
    for _ in range(3):
        spans = traces.resource_spans.add().scope_spans.add()
        records = logs.resource_logs.add().scope_logs.add()
        for index in range(100):
            span = spans.spans.add(trace_id=chance.randbytes(16), name="n" * chance.randint(0, 40))
            records.log_records.add(severity_text="s").body.string_value = "b" * chance.randint(0, 300)
            for _ in range(400 if index == 7 else 2):
                span.attributes.add(key="k").value.array_value.values.add(int_value=chance.randint(0, 1 << 60))
                span.events.add(name="e")
        for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary", ""):
            metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name=kind)
            for _ in range(chance.choice((0, 3, 300)) if kind else 0):
                getattr(metric, kind).data_points.add(time_unix_nano=chance.randint(1, 1 << 60))
    return [traces, metrics, logs]


@pytest.mark.parametrize("piece_bytes", [1, 50, 1000, 100_000])
def test_pieces_count_what_the_whole_counts(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    """Whatever the size of a piece, a good request has the same number of items; cut short, it is no request."""
    monkeypatch.setattr(large, "PIECE_BYTES", piece_bytes)
    requests = _requests(random.Random(piece_bytes))
    for kind, request in zip(KINDS, requests, strict=True):
        payload = request.SerializeToString()
        assert large.count_large(kind.message.DESCRIPTOR, payload) == kind.count(request)
        for cut in (1, 2, 3, len(payload) // 2):
            try:
                kind.message.FromString(payload[:-cut])
            except DecodeError:
                with pytest.raises(DecodeError):
                    large.count_large(kind.message.DESCRIPTOR, payload[:-cut])


def test_bits_that_flip_have_the_same_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand damaged requests, pieces refuse those that the whole parser refuses, and no other but groups."""
    monkeypatch.setattr(large, "PIECE_BYTES", 64)
    chance = random.Random(5)
    groups = 0
    for kind, request in zip(KINDS, _requests(chance), strict=True):
        whole = request.SerializeToString()[:3000]
        for _ in range(1000):
            payload = bytearray(whole)
            payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
            try:
                kind.message.FromString(bytes(payload))
                good = True
            except DecodeError:
                good = False
            verdict = "good"
            try:
                large.count_large(kind.message.DESCRIPTOR, bytes(payload))
            except DecodeError as error:
                verdict = str(error)
            groups += verdict == "a group"
            assert (verdict == "good") == good or verdict == "a group"
    assert groups < 100


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize("what", ["resources", "scopes", "spans", "attributes", "links", "values"])
def test_two_bytes_a_message_are_too_many_messages(what: str) -> None:
    """Sixteen MiB of empty messages, of whatever kind and wherever they stand, are refused as what they are."""
    numbers = {"resources": 1, "scopes": 2, "spans": 2, "attributes": 9, "links": 13, "values": 1}
    payload = bytes([numbers[what] << 3 | 2, 0]) * (8 << 20)
    wrap = {"resources": (), "scopes": (1,), "spans": (2, 1), "attributes": (2, 2, 1), "links": (2, 2, 1)}
    for number in wrap.get(what, (5, 2, 9, 2, 2, 1)):
        payload = _field(number, payload)
    with pytest.raises(BadInputError, match="more than 1000000 spans"):
        count_items(KINDS[0], payload)

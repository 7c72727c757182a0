"""Duty 3: a success is 200 with an empty Export…Response; an empty request succeeds; nothing is taken in part."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, Signal, Target, example, marker

signals = pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))


@signals
def test_an_empty_protobuf_request_succeeds(target: Target, signal: Signal) -> None:
    """A protobuf request of no bytes is answered 200. (An empty request: SHOULD succeed)"""
    assert target.post(b"", path=signal.path).code == 200


@signals
def test_an_empty_json_request_succeeds(target: Target, signal: Signal) -> None:
    """{} is answered 200 with {}."""
    answer = target.post(b"{}", JSON, path=signal.path)
    assert (answer.code, json.loads(answer.body)) == (200, {})


@signals
def test_an_empty_grpc_request_succeeds(target: Target, signal: Signal) -> None:
    """An empty message is answered OK."""
    assert target.export(b"", signal) == b""


@signals
def test_empty_envelopes_succeed(target: Target, signal: Signal) -> None:
    """Resources without scopes and scopes without items are a success. (Empty Telemetry Envelopes)"""
    request: Any = signal.request()
    above = getattr(request, request.DESCRIPTOR.fields[0].name)
    above.add()
    getattr(above.add(), above[1].DESCRIPTOR.fields[1].name).add()
    assert target.export(request.SerializeToString(), signal) == b""
    assert target.post(request.SerializeToString(), path=signal.path).code == 200
    inner = {"resourceSpans": "scopeSpans", "resourceMetrics": "scopeMetrics", "resourceLogs": "scopeLogs"}[signal.key]
    assert target.post_json({signal.key: [{}, {inner: [{}]}]}, signal.path).code == 200


@signals
def test_the_protobuf_success_is_an_empty_response_message(target: Target, signal: Signal) -> None:
    """The body of a protobuf success is the signal's response with partial_success unset. (MUST)"""
    answer = target.post(example(signal).SerializeToString(), path=signal.path)
    response: Any = signal.response.FromString(answer.body)
    assert answer.code == 200
    assert not response.HasField("partial_success")


def test_the_json_success_is_an_empty_object(target: Target) -> None:
    """The body of a JSON success is {}: partialSuccess is unset. (MUST)"""
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": marker()}]}]}]}
    assert json.loads(target.post_json(body).body) == {}


@signals
def test_the_grpc_success_has_partial_success_unset(target: Target, signal: Signal) -> None:
    """A gRPC success is the signal's response with partial_success unset. (MUST)"""
    response: Any = signal.response.FromString(target.export(example(signal).SerializeToString(), signal))
    assert not response.HasField("partial_success")


def test_a_request_of_ignored_keys_alone_warns(target: Target) -> None:
    """JSON with content and no item that is known is a success that says so in partialSuccess, with 0 rejected."""
    answer = target.post_json({"resource_spans": [{"scope_spans": [{"spans": [{"name": "x"}]}]}]})
    assert answer.code == 200
    (partial,) = json.loads(answer.body).values()
    assert "resource_spans" in partial["errorMessage"]
    assert int(partial.get("rejectedSpans", 0)) == 0


def test_another_signals_json_warns(target: Target) -> None:
    """Metrics sent to the path of traces are unknown keys there, which the answer says."""
    answer = target.post_json({"resourceMetrics": []})
    assert (answer.code, "resourceMetrics" in answer.body.decode()) == (200, True)


def test_a_bad_item_leaves_the_whole_request(target: Target) -> None:
    """A request is taken whole or refused whole: of one with a bad span nothing is kept."""
    good, bad = marker(), marker()
    spans = [{"name": good}, {"name": bad, "kind": "SPAN_KIND_SERVER"}]
    assert target.post_json({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).code == 400
    after = marker()
    target.export(example(name=after).SerializeToString())
    assert target.kept(after)
    assert not any(good.encode() in payload for payload in target.payloads())


@pytest.mark.parametrize("count", [1, 2, 100])
def test_requests_on_one_connection_are_all_answered(target: Target, count: int) -> None:
    """A connection is kept alive over any number of requests. (OTLP/HTTP Connection; RFC 9112, 9.3)"""
    from tests.collector.duties.wire import Connection, raw

    with Connection(target.http_port) as connection:
        for _ in range(count):
            connection.send(raw("/v1/traces", b"", PROTOBUF))
            assert connection.answer().code == 200


def test_unary_calls_at_once_are_all_answered(target: Target) -> None:
    """A hundred calls in flight on one gRPC connection are each answered. (OTLP/gRPC Concurrent Requests)"""
    names = [marker() for _ in range(100)]
    call = target.channel.unary_unary(SIGNALS["traces"].method)
    futures = [call.future(example(name=name).SerializeToString(), timeout=20) for name in names]
    assert [future.result() for future in futures] == [b""] * 100
    assert all(target.kept(name) for name in names)

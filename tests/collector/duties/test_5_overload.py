"""Duty 5: overload is 503 with Retry-After, and UNAVAILABLE with RetryInfo in both trailers; nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from hubscope.collector.configuration.settings import Limits
from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, Front, Signal, example, marker, span_json

signals = pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))
REASONS = {
    "the log is full": Limits(log_size_bytes=10),
    "the disk is nearly full": Limits(free_disk_bytes=10**18),
    "too much waits": Limits(waiting_size_bytes=10),
}


@pytest.fixture(params=REASONS.values(), ids=list(REASONS))
def refusing(request: pytest.FixtureRequest, new_front: Callable[..., Front]) -> Front:
    """A front that cannot take anything now."""
    return new_front(limits=request.param)


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_http_is_503_with_retry_after(refusing: Front, kind: str) -> None:
    """HTTP is answered 503 with whole seconds in Retry-After and a Status in the request's type. (Throttling)"""
    body = span_json() if kind == JSON else example().SerializeToString()
    answer = refusing.post(body, kind)
    assert (answer.code, answer.headers["content-type"]) == (503, kind)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.status.details[0].Unpack(RetryInfo())


@signals
def test_grpc_is_unavailable_with_retry_info(refusing: Front, signal: Signal) -> None:
    """gRPC is answered UNAVAILABLE with RetryInfo in grpc-status-details-bin. (OTLP/gRPC Throttling)"""
    error = refusing.refused(example(signal).SerializeToString(), signal)
    assert error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    info = RetryInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() >= 1


def test_grpc_has_the_hint_of_the_python_exporter(refusing: Front) -> None:
    """The same RetryInfo stands in google.rpc.retryinfo-bin, where the Python exporter looks."""
    error = refusing.refused(example().SerializeToString())
    info = RetryInfo()
    rpc_status.from_call(error).details[0].Unpack(info)
    trailers = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    assert RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]) == info


def test_an_empty_request_succeeds_even_then(refusing: Front) -> None:
    """A gRPC request that holds nothing needs no room."""
    refusing.export(b"")


def test_bad_data_is_not_called_retryable(refusing: Front) -> None:
    """Bad data over gRPC is INVALID_ARGUMENT also while nothing can be taken."""
    assert refusing.refused(b"\xff").code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_what_was_refused_is_not_kept(new_front: Callable[..., Front]) -> None:
    """A request that was refused has left nothing, and what came before it is there."""
    front = new_front(limits=Limits(log_size_bytes=2000))
    kept, refused = marker(), marker()
    front.export(example(name=kept).SerializeToString())
    assert front.post(example(name=refused + "y" * 3000).SerializeToString()).code == 503
    assert front.kept(kept)
    assert not any(refused.encode() in payload for payload in front.payloads())


def test_a_stopping_front_refuses_retryably(new_front: Callable[..., Front]) -> None:
    """Everything that was acknowledged before a stop is kept, and the process ends with 0."""
    front = new_front()
    names = [marker() for _ in range(20)]
    for name in names:
        front.export(example(name=name).SerializeToString())
    assert front.process.stdin is not None
    front.process.stdin.close()
    assert front.process.wait(20) == 0
    assert all(front.kept(name) for name in names)


def test_the_refusals_are_counted(new_front: Callable[..., Front]) -> None:
    """Spans refused are counted by transport under the stock Collector's name."""
    front = new_front(limits=Limits(log_size_bytes=1000))
    front.refused(example(name="n" * 1000, items=3).SerializeToString())
    front.post(example(name="n" * 1000, items=2).SerializeToString())
    from tests.collector.duties.test_9_telemetry import metric

    assert metric(front, "otelcol_receiver_refused_spans") == {"grpc": 3, "http": 2}

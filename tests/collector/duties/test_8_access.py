"""Duty 8: CORS off unless origins are named; tokens; nothing of a request reaches the file system."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from hubscope.collector.configuration.settings import Security
from tests.collector.duties.wire import JSON, PROTOBUF, Front, Target, example, raw

PREFLIGHT = ("Origin: http://ui.example", "Access-Control-Request-Method: POST")


def test_no_cors_unasked(target: Target) -> None:
    """Without configured origins no answer has a CORS header, neither to a request nor to a preflight."""
    for data in (
        raw("/v1/traces", b"", PROTOBUF, *PREFLIGHT),
        raw("/v1/traces", b"", None, *PREFLIGHT, method="OPTIONS"),
    ):
        answer = target.exchange(data)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_preflight_without_cors_is_405(target: Target) -> None:
    """Without configured origins OPTIONS is a method like any other that is not POST."""
    assert target.exchange(raw("/v1/traces", b"", None, *PREFLIGHT, method="OPTIONS")).code == 405


@pytest.fixture
def open_front(new_front: Callable[..., Front]) -> Front:
    """A front that a page of http://ui.example may send to."""
    return new_front(security=Security(cors_allowed_origins=("http://ui.example",)))


def test_a_named_origin_may_send(open_front: Front) -> None:
    """A named origin is named back, and Vary says that the answer depends on it."""
    answer = open_front.post(b"{}", JSON, "Origin: http://ui.example")
    assert (answer.code, answer.headers["access-control-allow-origin"]) == (200, "http://ui.example")
    assert answer.headers["vary"].lower() == "origin"


def test_a_preflight_of_a_named_origin_is_204(open_front: Front) -> None:
    """Its preflight is answered 204 without a body, with the method and the headers that OTLP needs."""
    answer = open_front.exchange(raw("/v1/traces", b"", None, *PREFLIGHT, method="OPTIONS"), "OPTIONS")
    assert (answer.code, answer.body) == (204, b"")
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"content-type", "content-encoding"} <= set(answer.headers["access-control-allow-headers"].split(", "))


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://ui.example.evil", "HTTP://UI.EXAMPLE:81", "null", ""]
)
def test_another_origin_gets_no_cors(open_front: Front, origin: str) -> None:
    """Any other origin gets no CORS header."""
    answer = open_front.post(b"{}", JSON, f"Origin: {origin}")
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"].lower() == "origin", "a cache must not give it to the named one"


def test_errors_of_a_named_origin_have_cors(open_front: Front) -> None:
    """An error carries the CORS headers too, or the page could not read it."""
    answer = open_front.post(b"[]", JSON, "Origin: http://ui.example")
    assert (answer.code, answer.headers["access-control-allow-origin"]) == (400, "http://ui.example")


def test_405_with_cors_allows_options(open_front: Front) -> None:
    """Where OPTIONS is answered, Allow says so."""
    assert open_front.exchange(raw(method="GET")).headers["allow"] == "POST, OPTIONS"


@pytest.fixture
def guarded(new_front: Callable[..., Front]) -> Front:
    """A front that asks for one of two tokens."""
    return new_front(security=Security(bearer_tokens=("s3cret", "other")))


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer no", "Basic s3cret", "s3cret", "Bearer s3cre", "Bearer s3crets"]
)
def test_without_a_token_401(guarded: Front, value: str) -> None:
    """Without one of the tokens HTTP is answered 401 with WWW-Authenticate and a Status. (RFC 9110, 11.6.1: MUST)"""
    answer = guarded.post(b"", PROTOBUF, f"Authorization: {value}")
    assert (answer.code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.status.message


@pytest.mark.parametrize("value", ["Bearer s3cret", "bearer s3cret", "BEARER other"])
def test_with_a_token_200(guarded: Front, value: str) -> None:
    """With one of the tokens it is taken; the scheme's case does not matter. (RFC 9110, 11.1)"""
    assert guarded.post(b"", PROTOBUF, f"Authorization: {value}").code == 200
    guarded.export(b"", metadata=(("authorization", value),))


@pytest.mark.parametrize("value", ["", "Bearer wrong", "s3cret"])
def test_without_a_token_unauthenticated(guarded: Front, value: str) -> None:
    """Without one of the tokens gRPC is UNAUTHENTICATED, which is not retried."""
    error = guarded.refused(b"", metadata=(("authorization", value),))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_a_token_in_a_trailer_is_none(guarded: Front) -> None:
    """A trailer is not taken for a header. (RFC 9110, 6.5.1)"""
    data = raw("/v1/traces", b"", PROTOBUF, "Transfer-Encoding: chunked", length=False)
    assert guarded.exchange(data + b"0\r\nAuthorization: Bearer s3cret\r\n\r\n").code == 401


def test_two_tokens_are_none(guarded: Front) -> None:
    """Of two Authorization lines neither counts."""
    assert guarded.post(b"", PROTOBUF, "Authorization: Bearer s3cret", "Authorization: Bearer x").code == 401


def test_the_token_is_asked_before_the_body(guarded: Front) -> None:
    """Whoever has no token is refused before the body is sent."""
    from tests.collector.duties.wire import Connection

    with Connection(guarded.http_port) as connection:
        connection.send(raw("/v1/traces", b"", PROTOBUF, "Content-Length: 1000000", length=False))
        assert connection.answer().code == 401


def test_a_body_is_not_executed_or_stored_by_name(target: Target) -> None:
    """Names that look like paths are data like any other."""
    for name in ("../../etc/passwd", "/etc/passwd\x00", "C:\\x", "$(reboot)"):
        request = example()
        request.resource_spans[0].resource.attributes.add(key="service.name").value.string_value = name  # type: ignore[attr-defined]
        target.export(request.SerializeToString())

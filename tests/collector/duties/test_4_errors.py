"""Duty 4: HTTP errors carry google.rpc.Status; bad data is 400 with BadRequest; error texts are short and clean."""

from __future__ import annotations

import json
import re

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status

from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, Signal, Target, raw

signals = pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))
BAD_PROTOBUF = {
    "a tag alone": b"\x0a",
    "a length beyond the end": b"\x0a\xff\x01",
    "field number zero": b"\x02\x00",
    "wire type 6": b"\x0e",
    "wire type 7": b"\x0f",
    "an end of a group": b"\x0c",
    "a group that does not end": b"\x0b",
    "an overlong varint": b"\x08" + b"\xff" * 10 + b"\x01",
    "a length of 2^63": b"\x0a" + b"\xff" * 9 + b"\x01",
    "text": b"plain text",
    "JSON": b"{}",
    "a name that is not UTF-8": b"\x0a\x0a\x12\x08\x12\x06\x2a\x04\xff\xfe\xfd\xfc",
    "zeros": bytes(10),
}
BAD_JSON = {
    "nothing": b"",
    "spaces": b" ",
    "a top-level list": b"[]",
    "a top-level null": b"null",
    "a top-level number": b"1",
    "a top-level text": b'"x"',
    "cut off": b'{"resourceSpans": [',
    "two documents": b"{}{}",
    "a trailing comma": b'{"resourceSpans": [],}',
    "single quotes": b"{'resourceSpans': []}",
    "a comment": b"{} // no",
    "NaN": b'{"x": NaN}',
    "Infinity": b'{"x": -Infinity}',
    "a leading zero": b'{"x": 01}',
    "a control character in text": b'{"x": "\x01"}',
    "half a surrogate pair": rb'{"resourceSpans": [{"schemaUrl": "\ud800"}]}',
    "bytes that are not UTF-8": b'{"x": "\xff"}',
    "a surrogate in UTF-8": b'{"x": "\xed\xa0\x80"}',
    "UTF-16": "{}".encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": "{}".encode("utf-32"),
    "protobuf": b"\x0a\x00",
    "an unending list": b"[" * 1_000,
    "an object where a list is due": b'{"resourceSpans": {}}',
    "a text where a list is due": b'{"resourceSpans": "x"}',
    "null in a list": b'{"resourceSpans": [null]}',
    "a list in a list": b'{"resourceSpans": [[]]}',
    "a number for text": b'{"resourceSpans": [{"schemaUrl": 1}]}',
    "true for a message": b'{"resourceSpans": [{"resource": true}]}',
}


@pytest.mark.parametrize("body", BAD_PROTOBUF.values(), ids=list(BAD_PROTOBUF))
def test_bad_protobuf_is_400(target: Target, body: bytes) -> None:
    """Protobuf that cannot be decoded is answered 400 with a BadRequest in the Status. (Bad Data: MUST, SHOULD)"""
    answer = target.post(body)
    assert answer.code == 400
    assert answer.status.details[0].Unpack(BadRequest())


@pytest.mark.parametrize("body", BAD_PROTOBUF.values(), ids=list(BAD_PROTOBUF))
def test_bad_protobuf_is_invalid_argument(target: Target, body: bytes) -> None:
    """A message that cannot be decoded is INVALID_ARGUMENT, not INTERNAL, with a BadRequest. (Failures)"""
    error = target.refused(body)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert rpc_status.from_call(error).details[0].Unpack(BadRequest())


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=list(BAD_JSON))
def test_bad_json_is_400(target: Target, body: bytes) -> None:
    """JSON that cannot be decoded is answered 400 with a BadRequest in a Status that is JSON."""
    answer = target.post(body, JSON)
    assert (answer.code, answer.headers["content-type"]) == (400, JSON)
    assert answer.status.details[0].Unpack(BadRequest())


@signals
def test_each_signal_refuses_bad_data(target: Target, signal: Signal) -> None:
    """Bad data is refused alike on every signal and transport."""
    assert target.post(b"\xff", path=signal.path).code == 400
    assert target.post(b"[]", JSON, path=signal.path).code == 400
    assert target.refused(b"\xff", signal).code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_the_code_is_the_grpc_code(target: Target) -> None:
    """Status.code, which is optional, is the canonical code where it is given: 3 for bad data."""
    assert target.post(b"\xff").status.code == 3
    assert target.post(b"[]", JSON).status.code == 3


@pytest.mark.parametrize("fill", ["y" * 500_000, "\\u0000" * 1000, "\\ud83d\\ude00" * 1000, "<script>"])
def test_error_texts_quote_little(target: Target, fill: str) -> None:
    """An error about a huge or odd value is short, and stays valid JSON without control characters."""
    body = f'{{"resourceSpans": [{{"scopeSpans": "{fill}"}}]}}'.encode()
    answer = target.post(body, JSON)
    assert answer.code == 400
    assert len(answer.body) < 4000
    assert all(c.isprintable() for c in json.loads(answer.body)["message"])


def test_a_huge_number_is_quoted_shortly(target: Target) -> None:
    """An integer of thousands of digits is bad data, and not repeated in the answer."""
    for digits in (1_000, 5_000, 100_000):
        answer = target.post(b'{"resourceSpans": [{"scopeSpans": %s}]}' % (b"9" * digits), JSON)
        assert (answer.code, len(answer.body) < 4000) == (400, True)
        for value in ('{"intValue": %s}', '{"doubleValue": %s}', '{"doubleValue": "%s"}', '{"intValue": "%s"}'):
            attribute = f'{{"key": "k", "value": {value % ("9" * digits)}}}'
            body = f'{{"resourceSpans": [{{"resource": {{"attributes": [{attribute}]}}}}]}}'
            answer = target.post(body.encode(), JSON)
            assert (answer.code, len(answer.body) < 4000) == (400, True)
            assert re.search("must be between|must fit a double|must be a number", json.loads(answer.body)["message"])
            assert b"int_max_str_digits" not in answer.body


def test_a_deep_wrong_value_is_a_400(target: Target) -> None:
    """A value of the wrong type that is nested hundreds of levels deep is bad data, not a server error."""
    for depth in (10, 100, 500, 900, 960, 980, 990, 1_000, 10_000, 100_000):
        body = b'{"resourceSpans": ' + b"[" * depth + b"]" * depth + b"}"
        assert target.post(body, JSON).code == 400, depth
        unknown = b'{"unknown": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        assert target.post(unknown, JSON).code in (200, 400), depth


def test_the_error_names_the_place(target: Target) -> None:
    """An error in JSON says at which key, and in which member of a list, it stands."""
    body = {"resourceSpans": [{}, {"scopeSpans": [{"spans": [{"kind": "SERVER"}]}]}]}
    message = target.post_json(body).status.message
    assert "resourceSpans[1].scopeSpans[0].spans[0].kind" in message


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_404_405_have_a_status(target: Target, kind: str) -> None:
    """Errors before the body is read carry a Status in the request's type as well. (All 4xx: MUST)"""
    for data, code in ((raw("/nowhere", b"", kind), 404), (raw("/v1/traces", b"", kind, method="GET"), 405)):
        answer = target.exchange(data)
        assert (answer.code, answer.headers["content-type"]) == (code, kind)
        assert answer.status.message


def test_a_path_is_not_quoted_at_length(target: Target) -> None:
    """The 404 of a path of 30 kB is short, and of one with odd bytes still valid."""
    for path in ("/" + "y" * 30_000, "/%00%0d%0a%ff<b>", "/%2e%2e/%2e%2e/etc/passwd"):
        answer = target.post(b"", JSON, path=path)
        assert (answer.code, len(answer.body) < 4000) == (404, True)
        assert answer.status.message.isprintable()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"POST /v1/traces HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"POST  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"POST /v1/traces HTTP/1.1\r\nHost x\r\n\r\n", 400),
        (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", 400),
        (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nA : c\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_400_with_a_status(target: Target, data: bytes, code: int) -> None:
    """Bytes that are no HTTP request are answered 400 with a Status as well, and the connection ends."""
    answer = target.exchange(data)
    assert (answer.code, answer.headers["connection"]) == (code, "close")
    assert answer.status.message


def test_only_retryable_errors_say_when_to_retry(target: Target) -> None:
    """No 4xx of ours has Retry-After: only 429, 502, 503 and 504 are to be sent again."""
    for data in (raw("/x"), raw("/v1/traces", b"\xff"), raw("/v1/traces", b"", "text/plain"), raw(method="GET")):
        answer = target.exchange(data)
        assert answer.code not in (429, 502, 503, 504)
        assert "retry-after" not in answer.headers

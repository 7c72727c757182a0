"""Traps of HTTP/1.1: chunked bodies, pipelines, absolute targets, Expect, Host, upgrades, and lengths that lie."""

from __future__ import annotations

import contextlib
import gzip

import pytest

from tests.collector.duties.wire import JSON, PROTOBUF, Connection, Target, example, marker, raw

CHUNKED = "Transfer-Encoding: chunked"


def chunks(*parts: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


def chunked(*parts: bytes, kind: str = PROTOBUF, more: tuple[str, ...] = (), **how: bytes) -> bytes:
    return raw("/v1/traces", b"", kind, CHUNKED, *more, length=False) + chunks(*parts, **how)


def test_a_chunked_body_is_read(target: Target) -> None:
    """A chunked body is read whole, not taken as empty. (RFC 9112, 7.1: MUST)"""
    name = marker()
    body = example(name=name).SerializeToString()
    assert target.exchange(chunked(body[:7], body[7:8], body[8:])).code == 200
    assert target.kept(name)


def test_a_chunked_json_body_is_read(target: Target) -> None:
    """A chunked body of bad JSON is found to be bad."""
    assert target.exchange(chunked(b"{", kind=JSON)).code == 400
    assert target.exchange(chunked(b"{", b"}", kind=JSON)).code == 200


def test_a_chunked_gzip_body_is_read(target: Target) -> None:
    """A chunked gzip body is both."""
    name = marker()
    body = gzip.compress(example(name=name).SerializeToString())
    assert target.exchange(chunked(body[:9], body[9:], more=("Content-Encoding: gzip",))).code == 200
    assert target.kept(name)


def test_one_byte_chunks(target: Target) -> None:
    """A body in chunks of one byte is the same body."""
    name = marker()
    body = example(name=name).SerializeToString()
    assert target.exchange(chunked(*(bytes([byte]) for byte in body))).code == 200
    assert target.kept(name)


def test_chunk_extensions_and_trailers_are_ignored(target: Target) -> None:
    """Chunk extensions and trailers change nothing. (RFC 9112, 7.1.1 and 7.1.2)"""
    data = chunked(b"{}", kind=JSON, extension=b";a=b", trailers=b"X-Check: 1\r\n")
    assert target.exchange(data).code == 200


def test_a_trailer_is_not_a_header(target: Target) -> None:
    """A Content-Encoding or Content-Type among the trailers does not count. (RFC 9110, 6.5.1)"""
    data = chunked(b"{}", kind=JSON, trailers=b"Content-Encoding: br\r\nContent-Type: text/plain\r\n")
    assert target.exchange(data).code == 200


@pytest.mark.parametrize("size", [b"x", b"-1", b"0x2", b"", b"fffffffffffffffff"])
def test_a_chunk_size_that_is_none_is_400(target: Target, size: bytes) -> None:
    """A chunk without a size is answered 400, and the connection ends."""
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", JSON, CHUNKED, length=False) + size + b"\r\n{}\r\n0\r\n\r\n")
        assert connection.answer().code == 400
        assert connection.rest() == b""


def test_length_and_chunked_are_refused(target: Target) -> None:
    """Content-Length beside Transfer-Encoding, which smuggles requests, is refused. (RFC 9112, 6.3)"""
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", JSON, CHUNKED, "Content-Length: 4", length=False) + chunks(b"{}"))
        assert connection.answer().code == 400
        assert connection.rest() == b""


@pytest.mark.parametrize("lengths", [("2", "3"), ("2", "2")])
def test_two_lengths_are_refused(target: Target, lengths: tuple[str, str]) -> None:
    """Two Content-Length lines are refused. (RFC 9110, 8.6)"""
    data = raw("/v1/traces", b"", JSON, *(f"Content-Length: {length}" for length in lengths), length=False)
    assert target.exchange(data + b"{}").code == 400


@pytest.mark.parametrize("length", ["-1", "+2", "2x", "0x2", "2 3", "99999999999999999999999"])
def test_a_length_that_is_none_is_400(target: Target, length: str) -> None:
    """A Content-Length that is no number is answered 400. (RFC 9112, 6.3: MUST)"""
    assert target.exchange(raw("/v1/traces", b"", JSON, f"Content-Length: {length}", length=False) + b"{}").code == 400


def test_another_transfer_coding_is_501(target: Target) -> None:
    """A transfer coding that is not known is answered 501, not decoded as something else. (RFC 9112, 6.1)"""
    data = raw("/v1/traces", b"", JSON, "Transfer-Encoding: gzip, chunked", length=False) + chunks(b"{}")
    answer = target.exchange(data)
    assert answer.code == 501
    assert answer.status.message


def test_a_body_that_ends_early_is_no_request(target: Target) -> None:
    """A sender that hangs up in the middle of its body has sent nothing, and others are served."""
    name = marker()
    body = example(name=name).SerializeToString()
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", PROTOBUF, f"Content-Length: {len(body) + 1}", length=False) + body)
    after = marker()
    target.export(example(name=after).SerializeToString())
    assert target.kept(after)
    assert not any(name.encode() in payload for payload in target.payloads())


def test_pipelined_requests_are_answered_in_order(target: Target) -> None:
    """Requests sent without waiting are each answered, in their order. (RFC 9112, 9.3.2: MUST)"""
    names = [marker() for _ in range(20)]
    bodies = [example(name=name).SerializeToString() for name in names]
    with Connection(target.http_port) as connection:
        requests = [raw("/v1/traces", body) if index % 3 else raw("/x", body) for index, body in enumerate(bodies)]
        connection.send(b"".join(requests))
        codes = [connection.answer().code for _ in requests]
    assert codes == [200 if index % 3 else 404 for index in range(20)]
    assert all(target.kept(name) for index, name in enumerate(names) if index % 3)


def test_garbage_behind_a_request_leaves_its_answer(target: Target) -> None:
    """A good request is answered as such when garbage follows it, and then the connection ends."""
    name = marker()
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", example(name=name).SerializeToString()) + b"GARBAGE\r\n\r\n")
        assert connection.answer().code == 200
        assert b" 200 " not in connection.rest()
    assert target.kept(name)


def test_an_absolute_target_is_understood(target: Target) -> None:
    """A request line with the whole URL is the same request. (RFC 9112, 3.2.2: MUST)"""
    assert target.post(b"", path="http://collector.example:4318/v1/traces").code == 200
    assert target.post(b"", path="http://collector.example/v1/nothing").code == 404


@pytest.mark.parametrize("path", ["http://collector.example", "*", "x"])
def test_odd_targets_get_an_answer(target: Target, path: str) -> None:
    """A target without a path, or that is none, is answered 4xx with a Status."""
    answer = target.exchange(raw(path, method="OPTIONS" if path == "*" else "POST"))
    assert 400 <= answer.code < 500
    assert answer.status.message


def test_connect_is_refused(target: Target) -> None:
    """CONNECT, which asks for a proxy, is answered 4xx."""
    assert 400 <= target.exchange(raw("a.b:443", method="CONNECT"), "CONNECT").code < 500


def test_a_request_without_host_is_400(target: Target) -> None:
    """An HTTP/1.1 request without Host is answered 400, with a Status. (RFC 9112, 3.2: MUST)"""
    answer = target.exchange(raw(host=""))
    assert answer.code == 400
    assert "Host" in answer.status.message


def test_two_hosts_are_400(target: Target) -> None:
    """An HTTP/1.1 request with two Host lines is answered 400. (RFC 9112, 3.2: MUST)"""
    assert target.exchange(raw("/v1/traces", b"", PROTOBUF, "Host: y")).code == 400


def test_http_1_0_is_served(target: Target) -> None:
    """HTTP/1.0, which has no Host and no chunks, is answered, and its connection ends."""
    with Connection(target.http_port) as connection:
        connection.send(raw(host="", version="1.0"))
        assert connection.answer().code == 200
        assert connection.rest() == b""


def test_close_is_honoured(target: Target) -> None:
    """Connection: close ends the connection behind the answer, which says so. (RFC 9112, 9.6: MUST)"""
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", PROTOBUF, "Connection: close"))
        answer = connection.answer()
        assert (answer.code, answer.headers["connection"]) == (200, "close")
        assert connection.rest() == b""


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_expect_gets_100(target: Target, value: str) -> None:
    """Expect: 100-continue is answered 100 before the body is sent. (RFC 9110, 10.1.1: MUST)"""
    name = marker()
    body = example(name=name).SerializeToString()
    with Connection(target.http_port) as connection:
        head = raw("/v1/traces", b"", PROTOBUF, f"Expect: {value}", f"Content-Length: {len(body)}", length=False)
        connection.send(head)
        assert connection.makefile().readline() == b"HTTP/1.1 100 Continue\r\n"
        assert connection.makefile().readline() == b"\r\n"
        connection.send(body)
        assert connection.answer().code == 200
    assert target.kept(name)


def test_expect_is_refused_before_the_body(target: Target) -> None:
    """What will be refused anyway is refused instead of 100, and the connection ends: the body may come or not."""
    with Connection(target.http_port) as connection:
        connection.send(raw("/x", b"", PROTOBUF, "Expect: 100-continue", "Content-Length: 1000", length=False))
        answer = connection.answer()
        assert (answer.code, answer.headers["connection"]) == (404, "close")
        assert connection.rest() == b""


def test_an_upgrade_is_ignored(target: Target) -> None:
    """An offer to upgrade (Java's client makes it with every request) is ignored, also twice. (RFC 9110, 7.8)"""
    with Connection(target.http_port) as connection:
        for _ in range(3):
            name = marker()
            offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
            connection.send(raw("/v1/traces", example(name=name).SerializeToString(), PROTOBUF, *offer))
            assert connection.answer().code == 200
            assert target.kept(name)


def test_a_websocket_offer_is_ignored(target: Target) -> None:
    """An offer of WebSocket is a request like any other."""
    offer = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA")
    assert target.exchange(raw("/v1/traces", b"", PROTOBUF, *offer)).code == 200


def test_http_2_on_the_http_port_is_refused(target: Target) -> None:
    """The HTTP/2 preface on the HTTP/1.1 port gets an answer or an end, not silence."""
    with Connection(target.http_port) as connection:
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        assert b" 4" in connection.rest()[:13]


def test_http_1_on_the_grpc_port_is_refused(target: Target) -> None:
    """HTTP/1.1 on the gRPC port gets an end, and gRPC goes on."""
    with Connection(target.grpc_port) as connection:
        connection.send(raw())
        with contextlib.suppress(OSError):
            connection.rest()
    target.export(b"")


@pytest.mark.parametrize(
    "data", [b"\x00" * 1000, b"\xff" * 100_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000]
)
def test_garbage_on_the_grpc_port_is_refused(target: Target, data: bytes) -> None:
    """Garbage on the gRPC port ends that connection alone."""
    with Connection(target.grpc_port) as connection:
        try:
            connection.send(data)
            connection.rest()
        except OSError:
            pass
    target.export(b"")


def test_header_names_have_no_case(target: Target) -> None:
    """Header names are case-insensitive. (RFC 9110, 5.1)"""
    data = b"POST /v1/traces HTTP/1.1\r\nhOST: x\r\nCONTENT-TYPE: application/json\r\ncontent-LENGTH: 2\r\n\r\n{}"
    assert target.exchange(data).code == 200


def test_white_space_around_header_values_is_ignored(target: Target) -> None:
    """White space around a header's value is not part of it. (RFC 9112, 5.1)"""
    data = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: \t application/json \t\r\nContent-Length: 2\r\n\r\n{}"
    assert target.exchange(data).code == 200


def test_empty_lines_before_a_request_are_ignored(target: Target) -> None:
    """An empty line before the request line is ignored. (RFC 9112, 2.2: SHOULD)"""
    assert target.exchange(b"\r\n" + raw()).code == 200


def test_a_request_byte_by_byte(target: Target) -> None:
    """A request may arrive in any number of pieces."""
    name = marker()
    with Connection(target.http_port) as connection:
        for byte in raw("/v1/traces", example(name=name).SerializeToString()):
            connection.send(bytes([byte]))
        assert connection.answer().code == 200
    assert target.kept(name)


def test_no_answer_names_the_server_software(target: Target) -> None:
    """Answers name no software and no version."""
    assert "server" not in target.post(b"").headers

"""Duty 1: none and gzip; protobuf and JSON on one port; the answer in the request's type; three paths, POST."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from tests.collector.duties.h2client import call, message
from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, Connection, Signal, Target, example, marker, raw

# What grpcio's core answers before a line of ours runs.
by_grpcio = pytest.mark.xfail(strict=True, reason="grpcio's core answers INTERNAL, or OK, where gRPC says otherwise")
signals = pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))


def as_json(request: Any) -> bytes:
    """OTLP/JSON of an example, whose ids are the only bytes: they are left out."""
    for resource in getattr(request, "resource_spans", ()):
        for span in resource.scope_spans[0].spans:
            span.ClearField("trace_id")
            span.ClearField("span_id")
    return json_format.MessageToJson(request).encode()


@signals
def test_grpc_plain(target: Target, signal: Signal) -> None:
    """gRPC takes an uncompressed request of each signal. (OTLP/gRPC)"""
    name = marker()
    target.export(example(signal, name).SerializeToString(), signal)
    assert target.kept(name, signal)


@signals
def test_grpc_gzip(target: Target, signal: Signal) -> None:
    """gRPC takes a gzip request of each signal. (Protocol details: MUST support gzip)"""
    name = marker()
    target.export(example(signal, name).SerializeToString(), signal, compression=grpc.Compression.Gzip)
    assert target.kept(name, signal)


@signals
def test_http_protobuf_plain(target: Target, signal: Signal) -> None:
    """HTTP takes uncompressed protobuf of each signal at its path. (OTLP/HTTP Request)"""
    name = marker()
    assert target.post(example(signal, name).SerializeToString(), path=signal.path).code == 200
    assert target.kept(name, signal)


@signals
def test_http_protobuf_gzip(target: Target, signal: Signal) -> None:
    """HTTP takes gzip protobuf of each signal. (OTLP/HTTP Request: Content-Encoding: gzip)"""
    name = marker()
    body = gzip.compress(example(signal, name).SerializeToString())
    assert target.post(body, PROTOBUF, "Content-Encoding: gzip", path=signal.path).code == 200
    assert target.kept(name, signal)


@signals
def test_http_json_plain(target: Target, signal: Signal) -> None:
    """HTTP takes uncompressed JSON of each signal on the same port. (OTLP/HTTP Connection)"""
    name = marker()
    assert target.post(as_json(example(signal, name)), JSON, path=signal.path).code == 200
    assert target.kept(name, signal)


@signals
def test_http_json_gzip(target: Target, signal: Signal) -> None:
    """HTTP takes gzip JSON of each signal."""
    name = marker()
    body = gzip.compress(as_json(example(signal, name)))
    assert target.post(body, JSON, "Content-Encoding: gzip", path=signal.path).code == 200
    assert target.kept(name, signal)


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_the_success_is_in_the_requests_type(target: Target, kind: str) -> None:
    """A success has the Content-Type of its request. (OTLP/HTTP Response: MUST)"""
    assert target.post(b"{}" if kind == JSON else b"", kind).headers["content-type"] == kind


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize("body", [b"\xff\xff", b"{"])
def test_the_error_is_in_the_requests_type(target: Target, kind: str, body: bytes) -> None:
    """An error has the Content-Type of its request. (OTLP/HTTP Response: MUST)"""
    answer = target.post(body, kind)
    assert (answer.code, answer.headers["content-type"]) == (400, kind)
    assert answer.status.message


@pytest.mark.parametrize(
    "kind",
    ["Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8", "APPLICATION/JSON ; a=b"],
)
def test_content_type_json_has_parameters_and_any_case(target: Target, kind: str) -> None:
    """Content-Type is compared without case and without its parameters: JSON. (RFC 9110, 8.3.1)"""
    assert target.post(b"{}", kind).code == 200


@pytest.mark.parametrize(
    "kind", ["application/X-Protobuf", "application/x-protobuf; messageType=a.b", "APPLICATION/X-PROTOBUF"]
)
def test_content_type_protobuf_has_parameters_and_any_case(target: Target, kind: str) -> None:
    """Content-Type is compared without case and without its parameters: protobuf. (RFC 9110, 8.3.1)"""
    assert target.post(b"", kind).code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/grpc", "json", "", "application/jsonx"])
def test_another_content_type_is_415(target: Target, kind: str) -> None:
    """A Content-Type that is neither is answered 415, with a Status. (RFC 9110, 15.5.16)"""
    answer = target.post(b"{}", kind)
    assert answer.code == 415
    assert "Content-Type" in answer.status.message


def test_no_content_type_is_415(target: Target) -> None:
    """A request without a Content-Type is answered 415, with a Status."""
    answer = target.post(b"{}", None)
    assert answer.code == 415
    assert answer.status.message


def test_two_content_types_are_415(target: Target) -> None:
    """Two different Content-Type lines are not one of them at random."""
    assert target.post(b"{}", JSON, f"Content-Type: {PROTOBUF}").code == 415


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "Gzip", "x-gzip", " gzip ", "identity, gzip", "gzip,"])
def test_gzip_in_every_spelling(target: Target, coding: str) -> None:
    """Content codings are case-insensitive, x-gzip is gzip, and identity codes nothing. (RFC 9110, 8.4.1)"""
    name = marker()
    body = gzip.compress(example(name=name).SerializeToString())
    assert target.post(body, PROTOBUF, f"Content-Encoding: {coding}").code == 200
    assert target.kept(name)


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_no_coding_in_every_spelling(target: Target, coding: str) -> None:
    """An empty or identity Content-Encoding is none."""
    assert target.post(b"", PROTOBUF, f"Content-Encoding: {coding}").code == 200


@pytest.mark.parametrize("coding", ["br", "compress", "zstdx", "gzip, gzip", "gzip, br", "utf-8"])
def test_another_coding_is_415(target: Target, coding: str) -> None:
    """An unknown content coding, or several, is answered 415 with a Status. (RFC 9110, 8.4)"""
    answer = target.post(b"x", PROTOBUF, f"Content-Encoding: {coding}")
    assert answer.code == 415
    assert "Content-Encoding" in answer.status.message


def test_415_names_the_codings_that_are_taken(target: Target) -> None:
    """A 415 for the coding says in Accept-Encoding which would do. (RFC 9110, 12.5.3)"""
    assert "gzip" in target.post(b"x", PROTOBUF, "Content-Encoding: br").headers["accept-encoding"]


@pytest.mark.parametrize("coding", ["deflate", "zstd", "snappy", "lz4", "zlib"])
def test_codings_beyond_the_specification_are_refused_or_decoded(target: Target, coding: str) -> None:
    """A coding beyond none and gzip is never taken for the content itself: 415 here."""
    answer = target.post(zlib.compress(example().SerializeToString()), PROTOBUF, f"Content-Encoding: {coding}")
    assert answer.code == 415


def test_codings_in_two_lines_are_one_list(target: Target) -> None:
    """Two Content-Encoding lines are one list. (RFC 9110, 5.3)"""
    body = gzip.compress(b"")
    assert target.post(body, PROTOBUF, "Content-Encoding: identity", "Content-Encoding: gzip").code == 200
    assert target.post(body, PROTOBUF, "Content-Encoding: gzip", "Content-Encoding: gzip").code == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_another_method_is_405(target: Target, method: str) -> None:
    """Any method but POST is answered 405, with a Status and with Allow: POST. (RFC 9110, 15.5.6: MUST)"""
    answer = target.exchange(raw(method=method))
    assert (answer.code, answer.headers["allow"]) == (405, "POST")
    assert "POST" in answer.status.message


def test_head_is_405_without_a_body(target: Target) -> None:
    """HEAD is answered as GET would be, 405 with Allow, without the body; the connection goes on. (RFC 9110, 9.3.2)"""
    with Connection(target.http_port) as connection:
        connection.send(raw(method="HEAD"))
        answer = connection.answer("HEAD")
        assert (answer.code, answer.headers["allow"], answer.body) == (405, "POST", b"")
        connection.send(raw())
        assert connection.answer().code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/trace", "/v1/traces/", "/V1/traces", "/v1development/profiles", "/v1", "//v1/traces", "/etc/passwd"],
)
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_another_path_is_404(target: Target, path: str, kind: str) -> None:
    """A path that is none of the three is answered 404, with a Status in the request's type."""
    answer = target.post(b"", kind, path=path)
    assert (answer.code, answer.headers["content-type"]) == (404, kind)
    assert answer.status.message


def test_a_query_is_ignored(target: Target) -> None:
    """A query behind the path changes nothing."""
    assert target.post(b"", path="/v1/traces?api-key=1").code == 200


def test_a_path_in_percent_encoding_is_the_path(target: Target) -> None:
    """A path with an escaped letter is the same path. (RFC 3986, 6.2.2.2)"""
    assert target.post(b"", path="/v1/%74races").code == 200


def test_an_unknown_grpc_method_is_unimplemented(target: Target) -> None:
    """gRPC methods and services that do not exist are UNIMPLEMENTED."""
    service = SIGNALS["traces"].method.split("/")[1]
    profiles = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
    for method in (f"/{service}/Import", "/a.b/Export", profiles):
        with pytest.raises(grpc.RpcError) as caught:
            target.channel.unary_unary(method)(b"", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@by_grpcio
def test_an_unknown_grpc_compression_is_unimplemented(target: Target) -> None:
    """A grpc-encoding that is not known is UNIMPLEMENTED, and the answer names those that are. (gRPC compression)"""
    answer = call(target.grpc_port, message(b"x", compressed=True), encoding="snappy")
    assert answer["grpc-status"] == "12"
    assert "gzip" in answer["grpc-accept-encoding"]


def test_grpc_gzip_by_hand(target: Target) -> None:
    """A gzip message as any gRPC client frames it is taken."""
    name = marker()
    body = gzip.compress(example(name=name).SerializeToString())
    assert call(target.grpc_port, message(body, compressed=True), encoding="gzip")["grpc-status"] == "0"
    assert target.kept(name)


def test_a_compressed_message_without_an_encoding_is_refused(target: Target) -> None:
    """A message that is marked compressed on a call that names no encoding is an error, not content."""
    assert call(target.grpc_port, message(gzip.compress(b""), compressed=True))["grpc-status"] != "0"


def test_a_damaged_gzip_over_grpc_is_refused(target: Target) -> None:
    """A gzip message that cannot be decompressed is an error of its call alone."""
    assert call(target.grpc_port, message(b"no gzip", compressed=True), encoding="gzip")["grpc-status"] != "0"
    target.export(b"")


def test_two_messages_in_one_call_are_refused(target: Target) -> None:
    """Export is unary: a second message in its stream is an error, or ignored, and nothing hangs."""
    assert "grpc-status" in call(target.grpc_port, message(b"") * 2)


def test_a_call_without_a_message_is_refused(target: Target) -> None:
    """A call that ends before its message is an error of that call."""
    assert call(target.grpc_port, b"").get("grpc-status") != "0"


@by_grpcio
def test_grpc_over_the_wrong_content_type_is_refused(target: Target) -> None:
    """A call whose content-type is not application/grpc is refused. (gRPC over HTTP/2)"""
    answer = call(target.grpc_port, message(b""), content_type="text/plain")
    assert answer.get(":status") == "415" or answer.get("grpc-status", "0") != "0" or "reset" in answer


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;a=b"])
def test_grpc_content_types(target: Target, kind: str) -> None:
    """application/grpc may name the encoding, and may have parameters. (gRPC over HTTP/2)"""
    assert call(target.grpc_port, message(b""), content_type=kind)["grpc-status"] == "0"

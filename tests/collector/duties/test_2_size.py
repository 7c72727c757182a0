"""Duty 2: the size limit counts after decompression; 413 on HTTP, RESOURCE_EXHAUSTED without a retry hint on gRPC."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable

import grpc
import psutil
import pytest

from hubscope.collector.configuration.settings import Limits
from tests.collector.duties.h2client import call, message
from tests.collector.duties.wire import JSON, MIB, PROTOBUF, Connection, Front, Target, example, marker, raw

GZIP = "Content-Encoding: gzip"


def sized(size_bytes: int, name: str = "") -> bytes:
    """A good request of about that size, in one attribute."""
    request = example(name=name or marker())
    attribute = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="k")  # type: ignore[attr-defined]
    attribute.value.string_value = "y" * size_bytes
    return request.SerializeToString()


def exactly(size_bytes: int) -> bytes:
    base = len(sized(size_bytes)) - size_bytes
    body = sized(size_bytes - base)
    return body if len(body) == size_bytes else sized(size_bytes - base + size_bytes - len(body))


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_http_beyond_the_limit_is_413(target: Target, kind: str) -> None:
    """A body beyond the limit is answered 413 with a Status in its type and no Retry-After. (OTLP/HTTP Request)"""
    body = sized(MIB) if kind == PROTOBUF else b'{"x":"' + b"y" * MIB + b'"}'
    answer = target.post(body, kind)
    assert (answer.code, answer.headers["content-type"]) == (413, kind)
    assert "larger than" in answer.status.message
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_http_gzip_beyond_the_limit_is_413(target: Target, kind: str) -> None:
    """A small body that decompresses beyond the limit is answered 413. (MUST, including after decompression)"""
    body = gzip.compress(sized(MIB) if kind == PROTOBUF else b'{"x":"' + b"y" * MIB + b'"}')
    assert len(body) < MIB // 100
    answer = target.post(body, kind, GZIP)
    assert answer.code == 413
    assert answer.status.message


def test_http_chunked_beyond_the_limit_is_413(target: Target) -> None:
    """A chunked body, which announces no size, is limited as well."""
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    data = raw("/v1/traces", b"", PROTOBUF, "Transfer-Encoding: chunked", length=False) + chunk * 20 + b"0\r\n\r\n"
    assert target.exchange(data).code == 413


def test_http_at_the_limit_is_taken(target: Target) -> None:
    """A body of exactly the limit is taken, and one byte more is not."""
    body = exactly(MIB)
    assert len(body) == MIB
    assert target.post(body).code == 200
    assert target.post(gzip.compress(body), PROTOBUF, GZIP).code == 200
    assert target.post(exactly(MIB + 1)).code == 413


def test_grpc_beyond_the_limit_is_resource_exhausted(target: Target) -> None:
    """A message beyond the limit is RESOURCE_EXHAUSTED without RetryInfo, so it is not retried. (OTLP/gRPC Request)"""
    error = target.refused(sized(MIB))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    trailers = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
    assert not {"grpc-status-details-bin", "google.rpc.retryinfo-bin"} & trailers.keys()


def test_grpc_gzip_beyond_the_limit_is_resource_exhausted(target: Target) -> None:
    """A message that decompresses beyond the limit is RESOURCE_EXHAUSTED."""
    error = target.refused(sized(MIB), compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_grpc_at_the_limit_is_taken(target: Target) -> None:
    """A message of exactly the limit is taken, plain and gzip."""
    body = exactly(MIB)
    target.export(body)
    target.export(body, compression=grpc.Compression.Gzip)


def test_after_413_the_server_goes_on(target: Target) -> None:
    """A request after one that was too large is taken."""
    target.post(sized(2 * MIB))
    assert target.post(example().SerializeToString()).code == 200


def _peak_of(front: Front, run: Callable[[], None]) -> int:
    """How much the front's resident memory grew at most while `run` ran, in bytes (the kernel's high-water mark)."""
    status = f"/proc/{front.process.pid}/status"

    def high_water() -> int:
        with open(status) as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    before = psutil.Process(front.process.pid).memory_info().rss
    run()
    return high_water() - before


@pytest.mark.skipif(not psutil.LINUX, reason="reads the kernel's high-water mark")
def test_gzip_bombs_stay_within_memory(new_front: Callable[..., Front]) -> None:
    """Bombs of 1 GiB on HTTP and of 256 MiB on gRPC, five each, cost less than 300 MB together and are refused."""
    front = new_front()
    bomb = gzip.compress(bytes(64 * MIB), 9) * 16
    one_member = gzip.compress(bytes(256 * MIB), 1)

    def run() -> None:
        for _ in range(5):
            answer = front.post(bomb, PROTOBUF, GZIP)
            assert answer.code == 413
            assert call(front.grpc_port, message(one_member, compressed=True), encoding="gzip")["grpc-status"] == "8"

    assert _peak_of(front, run) < 300 * MIB


@pytest.mark.skipif(not psutil.LINUX, reason="reads the kernel's high-water mark")
@pytest.mark.parametrize("what", ["spans", "json objects", "json members"])
def test_many_small_parts_stay_within_memory(new_front: Callable[..., Front], what: str) -> None:
    """60 MiB of two-byte spans or three-byte JSON objects, in 60 KB of gzip, are refused for less than 500 MB."""
    front = new_front()
    size = 60 * MIB
    kind = JSON
    if what == "spans":
        kind, scope = PROTOBUF, b"\x12\x00" * (size // 2)
        resource = b"\x12" + _varint(len(scope)) + scope
        body = b"\x0a" + _varint(len(resource)) + resource
    elif what == "json objects":
        body = b'{"resourceSpans":[' + b"{}," * (size // 3) + b"{}]}"
    else:
        body = b'{"a":[' + b'"ab",' * (size // 5) + b"0]}"

    def run() -> None:
        answer = front.post(gzip.compress(body, 1), kind, GZIP)
        assert answer.code == 400, answer
        assert "smaller batches" in str(answer.status)

    assert _peak_of(front, run) < 500 * MIB


def _varint(number: int) -> bytes:
    text = b""
    while number > 127:
        text += bytes([number & 127 | 128])
        number >>= 7
    return text + bytes([number])


def test_a_million_gzip_members_are_refused_at_once(new_front: Callable[..., Front]) -> None:
    """A body of a million empty gzip members is refused by their number, and holds nobody up."""
    front = new_front()
    body = gzip.compress(b"") * 1_000_000
    answer = front.post(body, PROTOBUF, GZIP)
    assert (answer.code, "members" in answer.status.message) == (400, True)


def test_several_gzip_members_are_one_content(target: Target) -> None:
    """A gzip body of several members is their contents one after the other. (RFC 1952, 2.2)"""
    name = marker()
    body = example(name=name).SerializeToString()
    assert target.post(gzip.compress(body[:20]) + gzip.compress(body[20:]), PROTOBUF, GZIP).code == 200
    assert target.kept(name)


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 20])
def test_a_truncated_gzip_is_400(target: Target, cut: int) -> None:
    """A gzip body without its end, be it the check sum alone, is bad data."""
    answer = target.post(gzip.compress(example(items=20).SerializeToString())[:-cut], PROTOBUF, GZIP)
    assert (answer.code, "gzip" in answer.status.message) == (400, True)


def test_a_wrong_check_sum_is_400(target: Target) -> None:
    """A gzip body whose check sum is wrong is bad data."""
    body = bytearray(gzip.compress(example().SerializeToString()))
    body[-8] ^= 1
    assert target.post(bytes(body), PROTOBUF, GZIP).code == 400


def test_garbage_behind_gzip_is_400(target: Target) -> None:
    """Bytes behind the last gzip member that are neither padding nor a member are bad data."""
    assert target.post(gzip.compress(b"") + b"garbage", PROTOBUF, GZIP).code == 400


def test_padding_behind_gzip_is_taken(target: Target) -> None:
    """Zeros behind the last gzip member are padding. (gzip(1))"""
    assert target.post(gzip.compress(b"") + bytes(100), PROTOBUF, GZIP).code == 200


@pytest.mark.parametrize("body", [b"plain text", zlib.compress(b""), b"\x1f", b"\x1f\x8b\x08"])
def test_what_is_no_gzip_is_400(target: Target, body: bytes) -> None:
    """A body that its Content-Encoding calls gzip and that is none is bad data."""
    assert target.post(body, PROTOBUF, GZIP).code == 400


def test_a_body_is_not_decompressed_unasked(target: Target) -> None:
    """Gzip without Content-Encoding is not OTLP: nothing is guessed."""
    assert target.post(gzip.compress(example().SerializeToString())).code == 400


def test_the_limit_can_be_set(new_front: Callable[..., Front]) -> None:
    """receivers.max_request_size moves the limit of both transports."""
    front = new_front(limits=Limits(request_size_bytes=1000))
    assert front.post(sized(2000)).code == 413
    assert front.refused(sized(2000)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert front.post(sized(500)).code == 200


def test_headers_beyond_64_kib_are_431(target: Target) -> None:
    """Headers that are too large are answered 431 with a Status, and the connection ends. (RFC 6585, 5)"""
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", JSON, *(f"X-{i}: {'y' * 4000}" for i in range(20))))
        answer = connection.answer()
        assert answer.code == 431
        assert answer.status.message
        assert connection.rest() == b""


@pytest.mark.parametrize(
    "start", [b"POST /v1/traces?", b"POST /v1/traces HTTP/1.1\r\nX: ", b"POST /v1/traces HTTP/1.1\r\nX"]
)
def test_a_header_that_never_ends_is_cut_off(target: Target, start: bytes) -> None:
    """A request line, header name or value without an end is refused when it is too large, not kept for ever."""
    with Connection(target.http_port) as connection:
        connection.send(start)
        assert refused_while(connection, (b"y" * 65536 for _ in range(200)))


def test_trailers_that_never_end_are_cut_off(target: Target) -> None:
    """Trailers behind a chunked body are bounded like headers."""
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", PROTOBUF, "Transfer-Encoding: chunked", length=False) + b"0\r\n")
        assert refused_while(connection, (b"X-%d: %s\r\n" % (index, b"y" * 1000) for index in range(20_000)))


def refused_while(connection: Connection, pieces: Iterable[bytes]) -> bool:
    """Whether the other side ended the connection before all of it was sent."""
    try:
        for piece in pieces:
            connection.send(piece)
    except OSError:
        return True
    return False

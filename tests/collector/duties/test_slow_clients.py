"""Traps of slow clients: whoever is idle, slow, silent or deaf holds up nobody but himself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from hubscope.collector.configuration.addresses import Address
from hubscope.collector.receivers.http_receiver import listen
from tests.collector.duties.h2client import H2, message
from tests.collector.duties.wire import (
    JSON,
    MIB,
    PROTOBUF,
    TRACES,
    Connection,
    Front,
    Target,
    example,
    marker,
    raw,
    span_json,
)

IDLE = 1_000
NORMAL = 60  # requests of the normal sender, a third of each form


def normal_sender(target: Target) -> list[str]:
    """A sender like any other: each of its requests must be answered with success. The names it sent."""
    names = [marker() for _ in range(NORMAL)]
    for index, name in enumerate(names):
        if index % 3 == 0:
            target.export(example(name=name).SerializeToString())
        elif index % 3 == 1:
            assert target.post(example(name=name).SerializeToString()).code == 200
        else:
            assert target.post(span_json(name=name), JSON).code == 200
    return names


@pytest.fixture
def files() -> Iterator[None]:
    """Room for two thousand sockets in this process."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * IDLE if hard == resource.RLIM_INFINITY else min(4 * IDLE, hard)
    if wanted < 3 * IDLE:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def sockets(count: int, port: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """That many connections, each having said `first`."""
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            if first:
                made[-1].sendall(first)
        yield made
    finally:
        for one in made:
            one.close()


@contextlib.contextmanager
def dripping(connections: list[socket.socket], byte: bytes) -> Iterator[None]:
    """Send a byte on every connection again and again meanwhile."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.is_set():
            for one in connections:
                with contextlib.suppress(OSError):
                    one.send(byte)
            stop.wait(0.05)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_thousand_idle_connections_on_each_port(new_front: Callable[..., Front], files: None) -> None:
    """With a thousand silent connections on either port, every request of a normal sender is answered and kept."""
    front = new_front()
    with sockets(IDLE, front.http_port), sockets(IDLE, front.grpc_port):
        names = normal_sender(front)
    assert all(front.kept(name) for name in names)


def test_slow_headers(new_front: Callable[..., Front]) -> None:
    """Two hundred senders that drip their headers byte by byte hold up nobody."""
    front = new_front()
    first = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with sockets(200, front.http_port, first) as slow, dripping(slow, b"y"):
        names = normal_sender(front)
    assert all(front.kept(name) for name in names)


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_slow_bodies(new_front: Callable[..., Front], kind: str) -> None:
    """Two hundred senders that drip their bodies byte by byte hold up nobody."""
    front = new_front()
    first = raw("/v1/traces", b"", kind, "Content-Length: 1000000", length=False)
    with sockets(200, front.http_port, first) as slow, dripping(slow, b" "):
        names = normal_sender(front)
    assert all(front.kept(name) for name in names)


def test_slow_chunks(new_front: Callable[..., Front]) -> None:
    """Two hundred senders that drip chunks of one byte hold up nobody."""
    front = new_front()
    first = raw("/v1/traces", b"", JSON, "Transfer-Encoding: chunked", length=False)
    with sockets(200, front.http_port, first) as slow, dripping(slow, b"1\r\n \r\n"):
        names = normal_sender(front)
    assert all(front.kept(name) for name in names)


def test_slow_grpc_streams(new_front: Callable[..., Front]) -> None:
    """Two hundred calls that never finish their message, over two connections, hold up nobody."""
    front = new_front()
    clients = [H2(front.grpc_port) for _ in range(2)]
    try:
        for client in clients:
            for _ in range(100):
                client.send(client.open(), message(bytes(1000), length=100_000), end=False)
        names = normal_sender(front)
    finally:
        for client in clients:
            client.close()
    assert all(front.kept(name) for name in names)


def test_grpc_calls_without_a_message(new_front: Callable[..., Front]) -> None:
    """Two hundred calls that never begin their message hold up nobody."""
    front = new_front()
    client = H2(front.grpc_port)
    try:
        for _ in range(100):
            client.open()
        names = normal_sender(front)
    finally:
        client.close()
    assert all(front.kept(name) for name in names)


def test_grpc_connections_without_a_preface(new_front: Callable[..., Front]) -> None:
    """Two hundred connections that drip the HTTP/2 preface hold up nobody."""
    front = new_front()
    with sockets(200, front.grpc_port, b"PRI * HTTP/2.0\r\n"):
        names = normal_sender(front)
    assert all(front.kept(name) for name in names)


def test_senders_that_never_read_their_answers(new_front: Callable[..., Front]) -> None:
    """Senders that pipeline requests and never read an answer hold up nobody, and stop being read."""
    front = new_front()
    request = raw("/nowhere", b"", JSON) * 500
    with sockets(20, front.http_port) as deaf:
        stuck = 0
        for one in deaf:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.settimeout(0.2)
            with contextlib.suppress(OSError):
                for _ in range(200):
                    one.sendall(request)
                continue
            stuck += 1
        assert stuck == len(deaf), "whoever reads no answer is read no further"
        names = normal_sender(front)
        assert psutil.Process(front.process.pid).memory_info().rss < 200 * MIB, "nor kept in memory"
    assert all(front.kept(name) for name in names)


def test_grpc_senders_that_never_read_their_answers(new_front: Callable[..., Front]) -> None:
    """A gRPC connection whose answers nobody reads holds up nobody."""
    front = new_front()
    client = H2(front.grpc_port)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        for _ in range(90):
            client.send(client.open(), message(b""))
        names = normal_sender(front)
    finally:
        client.close()
    assert all(front.kept(name) for name in names)


def test_senders_that_hang_up(new_front: Callable[..., Front]) -> None:
    """Three hundred senders that hang up in the middle leave nothing, and hold up nobody."""
    front = new_front()
    for first in (b"POST /v1", raw("/v1/traces", b"", JSON, "Content-Length: 99", length=False) + b"{"):
        with sockets(150, front.http_port, first):
            pass
    names = normal_sender(front)
    assert all(front.kept(name) for name in names)
    assert len(front.payloads()) == NORMAL


def test_large_requests_in_the_making(new_front: Callable[..., Front]) -> None:
    """While four requests of 10 MB are sent and decoded, the normal sender's are answered."""
    front = new_front()
    big: Any = example(name=marker())
    big.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="k").value.string_value = "y" * 10_000_000
    body = big.SerializeToString()
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(front.post(body).code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        names = normal_sender(front)
    finally:
        for thread in threads:
            thread.join()
    assert all(front.kept(name) for name in names)
    assert set(codes) <= {200, 503}, "taken, or told to come again"


def test_a_slow_body_that_ends_is_taken(target: Target) -> None:
    """A sender may be slow: what arrives in the end is kept."""
    name = marker()
    body = example(TRACES, name).SerializeToString()
    with Connection(target.http_port) as connection:
        connection.send(raw("/v1/traces", b"", PROTOBUF, f"Content-Length: {len(body)}", length=False))
        for start in range(0, len(body), 7):
            connection.send(body[start : start + 7])
            time.sleep(0.005)  # a slow sender is what is tested
        assert connection.answer().code == 200
    assert target.kept(name)


def test_an_answer_is_not_held_back_for_an_acknowledgement() -> None:
    """Nagle's algorithm is off on connections that are accepted: with it an answer's body came 40 ms after its head."""

    async def accepted() -> int:
        listening = listen(Address("127.0.0.1", 0), "OTLP/HTTP", "--http")
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            option = await asyncio.wait_for(found, 10)
            writer.close()
        return option

    assert asyncio.run(accepted()) != 0

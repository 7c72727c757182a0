"""One sending process: damaged requests over gRPC and HTTP, many in flight, and among them good ones that must arrive.

    python -m tests.collector.fuzz.sender GRPC_PORT HTTP_PORT COUNT SEED IN_FLIGHT

Prints a JSON line of counts every 2 s, the last one with "done": true.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from typing import Any, Final

import grpc
import grpc.aio

from tests.collector.duties.wire import JSON, PROTOBUF, SIGNALS, TRACES, Signal
from tests.collector.fuzz import mutations

LATE_S: Final = 5.0
GOOD_EVERY: Final = 50  # one request of so many is good


def good_id(seed: int, index: int) -> bytes:
    """The trace id of a good request."""
    return b"good" + seed.to_bytes(4, "big") + index.to_bytes(8, "big")


class Sender:
    """The requests of one process."""

    def __init__(self, grpc_port: int, http_port: int, count: int, seed: int) -> None:
        self.http_port = http_port
        self.count, self.seed = count, seed
        self.chance = random.Random(seed)
        self.seeds = mutations.seeds(random.Random(seed + 1))
        self.counts: Counter[str] = Counter()
        self.acknowledged: list[int] = []  # indices of good requests
        self.slowest_s = 0.0
        self.late: list[str] = []
        self.next = 0
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options)
        self.calls = {name: self.channel.unary_unary(signal.method) for name, signal in SIGNALS.items()}

    async def work(self) -> None:
        """Send until all are sent, over a connection of its own."""
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while self.next < self.count:
            index, self.next = self.next, self.next + 1
            started_s = time.monotonic()
            what = "?"
            try:
                async with asyncio.timeout(LATE_S):
                    if index % GOOD_EVERY == 0:
                        what, connection = await self.good(index, connection)
                    else:
                        what, connection = await self.bad(connection)
            except TimeoutError:
                self.late.append(f"request {index}")
                what, connection = "late", None
            self.counts[what] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
        if connection is not None:
            connection[1].close()

    async def good(self, index: int, connection: Any) -> tuple[str, Any]:
        request: Any = TRACES.request()
        ids = {"trace_id": good_id(self.seed, index), "span_id": index.to_bytes(8, "big", signed=True)}
        span = request.resource_spans.add().scope_spans.add().spans.add(**ids, name="good")
        span.start_time_unix_nano = 20_000 * 86_400 * 10**9 + index
        form = index // GOOD_EVERY % 3
        if form == 0:
            answer = await self.grpc(TRACES, request.SerializeToString())
        elif form == 1:
            answer, connection = await self.http(connection, TRACES, request.SerializeToString(), PROTOBUF)
        else:
            answer, connection = await self.http(connection, TRACES, mutations.to_json(request), JSON)
        if answer in ("grpc OK", "http 200"):
            self.acknowledged.append(index)
        return f"good {answer}", connection

    async def bad(self, connection: Any) -> tuple[str, Any]:
        chance = self.chance
        signal, payload, text = chance.choice(self.seeds)
        if chance.random() < 0.02:
            payload, text = mutations.deep(signal, chance)
        elif chance.random() < 0.9:
            payload = chance.choice(mutations.BYTES)(payload, chance)
        form = chance.random()
        if form < 0.35:
            return await self.grpc(signal, payload, gzip=chance.random() < 0.1), connection
        body, kind = payload, PROTOBUF
        if form > 0.65:
            kind = JSON
            body = (
                mutations.damage_json(text, chance)
                if chance.random() < 0.6
                else chance.choice(mutations.BYTES)(text, chance)
            )
        encoding = ""
        if chance.random() < 0.15:
            body, encoding = mutations.compressed(body, chance), "gzip"
        if chance.random() < 0.06:
            return await self.damaged_head(signal, body, kind, encoding), connection
        return await self.http(connection, signal, body, kind, encoding)

    async def grpc(self, signal: Signal, payload: bytes, gzip: bool = False) -> str:
        try:
            compression = grpc.Compression.Gzip if gzip else None
            await self.calls[signal.name](payload, compression=compression)
        except grpc.aio.AioRpcError as error:
            return f"grpc {error.code().name}"
        return "grpc OK"

    async def http(
        self, connection: Any, signal: Signal, body: bytes, kind: str, encoding: str = ""
    ) -> tuple[str, Any]:
        for _ in range(2):  # a connection that was kept alive may have ended meanwhile
            fresh = connection is None
            reader, writer = connection or await asyncio.open_connection("127.0.0.1", self.http_port)
            try:
                writer.write(head(signal, len(body), kind, encoding) + body)
                await writer.drain()
                code, closes = await read_answer(reader)
            except (OSError, EOFError):
                writer.close()
                connection = None
                if fresh:
                    return "http ended", None
                continue
            if closes:
                writer.close()
            return f"http {code}", None if closes else (reader, writer)
        return "http ended", None

    async def damaged_head(self, signal: Signal, body: bytes, kind: str, encoding: str) -> str:
        """A connection of its own: after it nobody knows where the next request begins."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
        try:
            writer.write(mutations.headers(head(signal, len(body), kind, encoding), self.chance) + body)
            try:
                async with asyncio.timeout(0.3):
                    code, _ = await read_answer(reader)
                return f"head {code}"
            except TimeoutError:
                writer.write_eof()  # it waits for more, which is right; that there is no more must end it
            await reader.read()
            return "head ended"
        except (OSError, EOFError, ValueError):
            return "head ended"
        finally:
            writer.close()

    def report(self, done: bool) -> str:
        return json.dumps(
            {
                "done": done,
                "sent": sum(self.counts.values()),
                "counts": dict(self.counts),
                "slowest_s": self.slowest_s,
                "late": self.late[:10],
                "seed": self.seed,
                "acknowledged": self.acknowledged if done else [],
            }
        )


def head(signal: Signal, size_bytes: int, kind: str, encoding: str) -> bytes:
    lines = [f"POST {signal.path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {size_bytes}"]
    lines += [f"Content-Encoding: {encoding}"] if encoding else []
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The code of the next answer, and whether the connection ends behind it. Raises EOFError for none."""
    text = await reader.readuntil(b"\r\n\r\n")
    code = int(text.split(b" ", 2)[1])
    if code == 100:
        return await read_answer(reader)
    lower = text.lower()
    if b"content-length: " in lower:
        await reader.readexactly(int(lower.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
    return code, b"connection: close" in lower


async def main(grpc_port: int, http_port: int, count: int, seed: int, in_flight: int) -> None:
    sender = Sender(grpc_port, http_port, count, seed)
    tasks = [asyncio.create_task(sender.work()) for _ in range(in_flight)]
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=2.0)
        for task in done:
            task.result()
        print(sender.report(False), flush=True)
    with contextlib.suppress(Exception):
        await sender.channel.close()
    print(sender.report(True), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*(int(argument) for argument in sys.argv[1:])))

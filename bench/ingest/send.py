"""The load generator, a process of its own: sends for a time, as fast as it is answered or at a rate.

    python -m bench.ingest.send KIND ADDRESS --seconds S [--rate ITEMS_PER_S] [--in-flight N]

Prints one JSON object (`Load`). A refused request is sent again after the pause that the answer names.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import sys
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from bench.ingest import requests

SERVICE = {"spans": "trace.v1.TraceService", "metrics": "metrics.v1.MetricsService"}
ITEMS = {
    "spans": requests.SPANS_PER_REQUEST,
    "json": requests.SPANS_PER_REQUEST,
    "metrics": requests.SERIES_PER_REQUEST,
}


class Load(NamedTuple):
    """What the generator saw. `answers` are the times of the answers, in their order."""

    items: int
    size_bytes: int
    started_unix_s: float
    ended_unix_s: float  # the last answer
    refusals: int
    last_trace_id: str
    answers_unix_s: list[float]


def main() -> int:
    """Send, and say what became of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest.send")
    parser.add_argument("kind", choices=sorted(ITEMS))
    parser.add_argument("address")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--in-flight", type=int, default=8)
    options = parser.parse_args()
    send = _http if options.kind == "json" else _grpc
    print(json.dumps(send(options)._asdict()))
    return 0


class _Source:
    """Bodies to send, made as they are needed."""

    def __init__(self, kind: str) -> None:
        chance = random.Random(7)
        self.kind = kind
        self.last_trace_id = ""
        self._numbers = np.random.default_rng(7)
        self._next = 0
        if kind == "spans":
            self._templates = [requests.template(chance) for _ in range(requests.POOL)]
        elif kind == "json":
            self._bodies = [requests.build_json(chance) for _ in range(requests.POOL)]
        else:
            self._bodies = [requests.build_metrics(chance, time.time_ns()) for _ in range(requests.POOL)]

    def body(self) -> bytes:
        self._next += 1
        if self.kind == "spans":
            body, self.last_trace_id = requests.fresh(self._templates[self._next % requests.POOL], self._numbers)
            return body
        return self._bodies[self._next % requests.POOL]


class _Pace:
    """Blocks until the next request is due."""

    def __init__(self, options: Any) -> None:
        self._interval_s = ITEMS[options.kind] / options.rate if options.rate else 0.0
        self.started_s = time.perf_counter()
        self._ends_s = self.started_s + options.seconds
        self._sent = 0

    def next(self) -> bool:
        """False when the time is over."""
        due_s = self.started_s + self._sent * self._interval_s
        self._sent += 1
        if (wait_s := due_s - time.perf_counter()) > 0:
            time.sleep(wait_s)
        return time.perf_counter() < self._ends_s


def _grpc(options: Any) -> Load:
    import grpc

    source = _Source(options.kind)
    slots = threading.Semaphore(options.in_flight)
    again: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    answers: list[float] = []
    refusals = items = size_bytes = 0
    path = f"/opentelemetry.proto.collector.{SERVICE[options.kind]}/Export"
    with grpc.insecure_channel(options.address, [("grpc.max_send_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(30)
        export = channel.unary_unary(path)

        def send(payload: bytes) -> None:
            slots.acquire()
            call = export.future(payload, timeout=60)

            def done(finished: Any) -> None:
                if finished.code() is grpc.StatusCode.OK:
                    answers.append(time.time())
                else:
                    again.put(payload)
                slots.release()

            call.add_done_callback(done)

        pace = _Pace(options)
        started_unix_s = time.time()
        while pace.next():
            while not again.empty():
                refusals += 1
                time.sleep(0.2)
                send(again.get())
            payload = source.body()
            items += ITEMS[options.kind]
            size_bytes += len(payload)
            send(payload)
        while True:
            for _ in range(options.in_flight):
                slots.acquire()
            for _ in range(options.in_flight):
                slots.release()
            if again.empty():
                break
            refusals += 1
            time.sleep(0.2)
            send(again.get())
    return Load(items, size_bytes, started_unix_s, answers[-1], refusals, source.last_trace_id, answers)


def _http(options: Any) -> Load:
    from http.client import HTTPConnection

    source = _Source(options.kind)
    lock = threading.Lock()
    answers: list[float] = []
    sent = [0, 0, 0]  # items, bytes, refusals
    pace = _Pace(options)
    started_unix_s = time.time()

    def one() -> None:
        connection = HTTPConnection(options.address, timeout=60)
        while True:
            with lock:
                if not pace.next():
                    return
                payload = source.body()
            while True:
                connection.request("POST", "/v1/traces", payload, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    break
                if answer.status not in (429, 503):
                    sys.exit(f"the server answered {answer.status}")
                with lock:
                    sent[2] += 1
                time.sleep(0.2)
            with lock:
                answers.append(time.time())
                sent[0] += ITEMS[options.kind]
                sent[1] += len(payload)

    senders = [threading.Thread(target=one) for _ in range(options.in_flight)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return Load(sent[0], sent[1], started_unix_s, answers[-1], sent[2], "", answers)


if __name__ == "__main__":
    sys.exit(main())

"""The queue between an application's spans and the courier: what `BatchSpanProcessor` is, and the exporter behind it.

A span is written as it ends, and what waits are its 150 bytes. The SDK's keeps the span itself: 6.1 µs more a span, of
which the garbage collector takes 3, because a span is ten objects that outlive its first look. It reads the same
OTEL_BSP_* variables, and starts its thread with the first span: a forked child that makes none has none.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from hubscope.exporters.delivery.notices import tell
from hubscope.exporters.delivery.span_exporter import HubscopeSpanExporter
from hubscope.exporters.encoding.groups import Groups
from hubscope.exporters.encoding.spans import append_span
from hubscope.instrumentation import settings


class Limits(NamedTuple):
    """How long a span may wait for others, how many go out together, and how many may wait."""

    delay_s: float = 5.0
    batch: int = 512
    queue: int = 2048


QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"


def limits(environ: Mapping[str, str]) -> Limits:
    """What OTEL_BSP_* say. A number that is none, or below 1, is told, and the default holds."""
    usual = Limits()
    delay_ms = settings.positive_number("OTEL_BSP_SCHEDULE_DELAY", usual.delay_s * 1000, environ)
    queue = int(settings.positive_number(QUEUE_SIZE, usual.queue, environ)) or usual.queue
    batch = int(settings.positive_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usual.batch, environ)) or usual.batch
    return Limits(max(delay_ms, 1.0) / 1000, min(batch, queue), queue)


class SpanBatches(SpanProcessor):
    """Sends ended spans in batches by `exporter`'s courier, from a thread of its own.

    `limits.queue` holds for each instrumentation scope; a span that comes when so many wait is dropped, and counted.
    Nothing here waits for a lock in the application's threads.
    """

    def __init__(self, exporter: HubscopeSpanExporter, limits: Limits) -> None:
        self.exporter = exporter
        self.dropped = 0
        self._limits = limits
        self._batch = limits.batch
        self._max = limits.queue
        self._is_closed = False
        self._start_afresh()
        _all.add(self)

    def _start_afresh(self) -> None:
        """Also in a forked child, which has none of its parent's spans, threads and locks."""
        self.dropped = 0
        self._groups = Groups()
        self._whole: list[bytes] = []  # requests of spans that only the stock encoder can write
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._is_awake = False
        self._exporting = threading.Lock()
        self._starting = threading.Lock()

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        """A span is of interest when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue it, if it is sampled."""
        context = span.context
        if context is None or not context.trace_flags & 1 or self._is_closed:
            return
        items = append_span(span, self._groups, self._whole)
        if self._thread is None:
            self._start()
        if items is not None and len(items) >= self._batch:
            if not self._is_awake:
                self._is_awake = True
                self._wake.set()
            if len(items) > self._max:
                self._drop(items)

    def _drop(self, items: list[bytes]) -> None:
        with suppress(IndexError):  # the thread took them all meanwhile
            items.pop()
            self.dropped += 1
        if self.dropped == 1:
            tell("queue", "spans come faster than they can be sent, and some are dropped; %s allows more", QUEUE_SIZE)

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return  # somebody else does
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, daemon=True, name="hubscope-spans")
                thread.start()
                self._thread = thread
        except RuntimeError:  # the interpreter is too far gone for new threads; `shutdown` sends them
            return
        finally:
            self._starting.release()

    def _run(self) -> None:
        while not self._is_closed:
            is_full = self._wake.wait(self._limits.delay_s)
            self._wake.clear()
            self._is_awake = False
            with self._exporting:
                self._send(at_least=self._batch if is_full else 1)

    def _waiting(self) -> int:
        return self._groups.waiting() + len(self._whole)

    def _send(self, *, at_least: int = 1, until: float = float("inf")) -> bool:
        """Send batches while that many spans wait; whether all of it was accepted, and in time. The lock is held."""
        accepted = True
        while self._waiting() >= at_least:
            payload, items = self._groups.take(self._batch)
            whole = self._whole[: self._batch]
            del self._whole[: len(whole)]
            items += len(whole)
            token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
            try:
                # Protobuf reads requests one behind the other as one.
                accepted = self.exporter.courier.deliver(b"".join((payload, *whole)), items) and accepted
            finally:
                detach(token)
            if time.monotonic() > until:
                return False
        return accepted

    def has_spans(self) -> bool:
        """Whether any wait, or are on their way."""
        return self._waiting() > 0 or self._exporting.locked()

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send everything; whether all of it was accepted, in time."""
        timeout_s = 30.0 if timeout_millis is None else timeout_millis / 1000
        until = time.monotonic() + timeout_s
        if not self._exporting.acquire(timeout=max(timeout_s, 0.0)):
            return False
        try:
            return self._send(until=until)
        finally:
            self._exporting.release()

    def shutdown(self) -> None:
        """Send everything that waits, and take no more."""
        self._is_closed = True
        self._wake.set()
        with self._exporting:
            self._send()
        self.exporter.shutdown()


_all: weakref.WeakSet[SpanBatches] = weakref.WeakSet()


def _start_afresh() -> None:
    for each in list(_all):
        each._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)

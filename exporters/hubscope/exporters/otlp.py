"""Leaving never hangs because a collector is down: ours, and the stock OTLP exporters made to let go.

Measured on SDK 1.45: with nothing listening, a process left after 24 to 28 s (each of three signals retries with
back-off in its own exit handler, one after the other), and `force_flush(1000)` took 26 s and said True. Here the
three providers shut down side by side within one deadline, nothing is retried any more once leaving has begun, and
what has not been accepted by then is given up with one line on the log. `force_flush` keeps its time limit and says
False when anything was refused. This works on providers rather than exporter classes, so it also holds for those that
OTEL_CONFIG_FILE or the application itself set up. Our own exporters (`delivery`) know by themselves when to stop.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from hubscope.exporters.delivery.courier import Courier
from hubscope.exporters.delivery.leaving import leaving
from hubscope.exporters.delivery.span_batches import SpanBatches

_log = logging.getLogger("hubscope")

# What a request on its way may still take when the process ends at once: 0.1 s (`leaving` keeps a third for writing).
HARD_EXIT_S = 0.15
# Names under which SDK 1.40 to 1.45 keep what is needed here. A missing one is passed over; the tests with real
# processes fail if that makes leaving slow.
_RETRY_EVENTS = ("_shutdown_in_progress", "_shutdown_event", "_shutdown_is_occuring")


class BoundedExit:
    """Shuts providers down together within `timeout_s`, at exit or when one of them is told to."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.failed_exports = 0
        self._providers: list[Any] = []
        self._shutdowns: list[Callable[[], Any]] = []
        self._tracked: set[int] = set()
        self._is_closed = False
        self._pid = os.getpid()
        atexit.register(self.close)

    def add(self, provider: Any) -> None:
        """Take over the provider's exit handler, and bound its `shutdown` and `force_flush`."""
        if any(provider is known for known in self._providers):
            return
        handler = getattr(provider, "_atexit_handler", None) or getattr(provider, "_at_exit_handler", None)
        if handler is not None:
            atexit.unregister(handler)
        shutdown, flush = provider.shutdown, provider.force_flush
        self._providers.append(provider)
        self._shutdowns.append(_once(shutdown))
        last = self._shutdowns[-1]
        provider.shutdown = lambda *args, **kwargs: self._bounded_shutdown(provider, last)
        provider.force_flush = lambda timeout_millis=None: self._bounded_flush(provider, flush, timeout_millis)
        self.track(provider)

    def track(self, provider: Any) -> None:
        """Count the refused exports of the provider's exporters; once more after exporters were added.

        Ours count by themselves, and tell what became of it.
        """
        for exporter in exporters_of(provider):
            if id(exporter) not in self._tracked and courier_of(exporter) is None:
                self._tracked.add(id(exporter))
                exporter.export = self._counting(exporter.export)

    def _counting(self, export: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            try:
                result = export(*args, **kwargs)
            except BaseException:
                self.failed_exports += 1
                raise
            if getattr(result, "name", "SUCCESS") != "SUCCESS":
                self.failed_exports += 1
            return result

        return counting

    def close(self) -> None:
        """Shut everything down; returns after `timeout_s` at the latest."""
        self._is_closed = True
        leaving.begin(self.timeout_s)
        # One line of ours at the end instead of two or three for each signal from the stock exporters.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        for provider in self._providers:
            stop_retrying(provider)
        failed_before = self.failed_exports
        if not _together(self._shutdowns, self.timeout_s):
            _log.warning(
                "hubscope: the collector did not take the last telemetry within %.1f s; it is lost",
                self.timeout_s,
            )
        elif self.failed_exports > failed_before:
            _log.warning("hubscope: the collector refused the last telemetry, or is not there; it is lost")

    def keep(self) -> None:
        """Write what waits into the spool and send nothing more: for a process that ends at once. Our exporters' only.

        In a forked child only where spans wait: one that measured nothing writes nothing.
        """
        if self._is_closed or (os.getpid() != self._pid and not self._has_spans()):
            return
        leaving.begin(HARD_EXIT_S)
        for provider in self._providers:
            for exporter in exporters_of(provider):
                if (courier := courier_of(exporter)) is not None:
                    courier.stop_sending()
        for provider in self._providers:
            for processor in (*processors_of(provider), *readers_of(provider)):
                if courier_of(exporter_of(processor)) is not None:
                    _quietly(processor.force_flush)

    def _has_spans(self) -> bool:
        processors = [processor for provider in self._providers for processor in processors_of(provider)]
        return any(isinstance(each, SpanBatches) and each.has_spans() for each in processors)

    def _bounded_shutdown(self, provider: Any, shutdown: Callable[[], Any]) -> None:
        stop_retrying(provider)
        _together([shutdown], self.timeout_s)

    def _bounded_flush(self, provider: Any, flush: Callable[..., Any], timeout_millis: float | None) -> bool:
        timeout_s = self.timeout_s if timeout_millis is None else timeout_millis / 1000
        self.track(provider)
        failed_before = self._failures(provider)
        answers: list[Any] = []
        done = _together([lambda: answers.append(flush(int(timeout_s * 1000)))], timeout_s)
        return done and bool(answers) and answers[0] is not False and self._failures(provider) == failed_before

    def _failures(self, provider: Any) -> int:
        couriers = [courier for exporter in exporters_of(provider) if (courier := courier_of(exporter)) is not None]
        return self.failed_exports + sum(courier.unaccepted for courier in couriers)


def _together(calls: list[Callable[[], Any]], timeout_s: float) -> bool:
    """Run the calls side by side; whether all returned in time. Those that did not are left to daemon threads."""
    deadline = time.monotonic() + timeout_s
    threads = [threading.Thread(target=_quietly, args=(call,), daemon=True, name="hubscope-exit") for call in calls]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # the interpreter is too far gone for new threads
        return False
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _once(shutdown: Callable[[], Any]) -> Callable[[], None]:
    """`shutdown` at the first call; a later one returns when that has ended: SIGTERM may come in the midst of it."""
    lock = threading.Lock()
    begun: list[bool] = []

    def once() -> None:
        with lock:
            if not begun:
                begun.append(True)
                shutdown()

    return once


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - an exporter's failure must not become the application's
        _log.debug("a provider could not be shut down or flushed", exc_info=True)


def processors_of(provider: Any) -> Iterator[Any]:
    """The span or log processors of an SDK provider, nested ones included."""
    roots = (getattr(provider, "_active_span_processor", None), getattr(provider, "_multi_log_record_processor", None))
    pending = [root for root in roots if root is not None]
    while pending:
        processor = pending.pop()
        inner = getattr(processor, "_span_processors", None) or getattr(processor, "_log_record_processors", None)
        if inner is None:
            yield processor
        else:
            pending.extend(inner)


def exporters_of(provider: Any) -> Iterator[Any]:
    """The exporters behind an SDK provider's processors or metric readers."""
    for holder in (*processors_of(provider), *readers_of(provider)):
        exporter = exporter_of(holder)
        if exporter is not None:
            yield exporter


def exporter_of(holder: Any) -> Any:
    """The exporter behind a processor or a metric reader; None for one without."""
    batch = getattr(holder, "_batch_processor", holder)
    exporter = getattr(batch, "_exporter", None) or getattr(holder, "span_exporter", None)
    return exporter or getattr(holder, "exporter", None)  # the last is our own processor's


def readers_of(provider: Any) -> tuple[Any, ...]:
    """The metric readers of an SDK provider."""
    known: Any = getattr(provider, "_metric_readers", None)
    if known is None:  # SDK 1.40 to 1.42 at least
        known = getattr(getattr(provider, "_sdk_config", None), "metric_readers", ())
    return tuple(known)


def courier_of(exporter: Any) -> Courier | None:
    """What sends for one of our exporters; None for another's."""
    courier = getattr(exporter, "courier", None)
    return courier if isinstance(courier, Courier) else None


def stop_retrying(provider: Any) -> None:
    """From now on one attempt an export: a wait between two attempts ends at once."""
    for exporter in exporters_of(provider):
        courier = courier_of(exporter)
        if courier is not None:
            courier.stop_pausing()
            continue
        for holder in (exporter, getattr(exporter, "_client", None)):
            for name in _RETRY_EVENTS:
                event = getattr(holder, name, None)
                if isinstance(event, threading.Event):
                    event.set()


_bounded: BoundedExit | None = None


def bounded_exit(timeout_s: float) -> BoundedExit:
    """The one of this process; `timeout_s` counts at the first call."""
    global _bounded
    if _bounded is None:
        _bounded = BoundedExit(timeout_s)
    return _bounded

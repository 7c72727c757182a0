"""Takes finished requests of one signal to their destination: tries again, splits, and counts what became of each."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from hubscope.errors import ConfigError
from hubscope.exporters.delivery import leaving, settings, split
from hubscope.exporters.delivery.leaving import Leaving, Wait
from hubscope.exporters.delivery.notices import tell
from hubscope.exporters.delivery.outcome import Came, Outcome
from hubscope.exporters.delivery.settings import Destination, Signal

MAX_REQUEST_BYTES: Final = 64 << 20  # uncompressed: what OTLP asks a client to keep to, as the stock exporter does
ATTEMPTS: Final = 6  # as the stock exporter, within the request's timeout
FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 30.0
WHAT: Final = {"traces": "spans", "metrics": "data points", "logs": "log records"}


class Sender(Protocol):
    """One request and its answer. `send` raises nothing; `forget` is called in a forked child."""

    def send(self, payload: bytes, wait: Wait) -> Outcome: ...
    def close(self) -> None: ...
    def forget(self) -> None: ...


@dataclass
class Counts:
    """Items since the process began, by what became of them. `rejected` are those of accepted requests."""

    accepted: int = 0
    rejected: int = 0
    refused: int = 0
    lost: int = 0


class Courier:
    """Delivers the requests of one signal. Thread-safe; one request is on its way at a time."""

    def __init__(self, signal: Signal, destination: Destination | None, sender: Sender, leaving: Leaving) -> None:
        self.signal = signal
        self.destination = destination
        self.counts = Counts()
        self._sender = sender
        self._leaving = leaving
        self._timeout_s = destination.timeout_s if destination else 0.0
        self._shown = destination.shown if destination else "nowhere"
        self._server = destination.server if destination else "nowhere"
        self._lock = threading.Lock()
        self._closing = threading.Event()
        _couriers.add(self)

    def deliver(self, payload: bytes, items: int) -> bool:
        """Send one request; True when the destination has it for good. Raises nothing.

        Returns after the destination's timeout at the latest, and when the process leaves (`Leaving`).
        """
        if not payload:
            return True
        if len(payload) > MAX_REQUEST_BYTES:
            return self._in_halves(payload, items, Outcome(Came.TOO_LARGE, "it is larger than 64 MiB"))
        wait = Wait(self._timeout_s, self._leaving)
        if not self._turn(wait):
            return self._give_up(items, "another request is still on its way")
        try:
            outcome = self._attempts(payload, wait)
        finally:
            self._lock.release()
        return self._settled(payload, items, outcome)

    def stop_pausing(self) -> None:
        """From now on one attempt a request."""
        self._closing.set()

    def close(self) -> None:
        """Close the connection, unless a request is still on its way."""
        self.stop_pausing()
        if self._lock.acquire(blocking=False):
            self._sender.close()
            self._lock.release()

    def start_afresh(self) -> None:
        """In a forked child: no connection, lock or count of the parent's."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sender.forget()
        self.counts = Counts()

    def _turn(self, wait: Wait) -> bool:
        while True:
            try:
                slice_s = wait.slice_s()
            except TimeoutError:
                return self._lock.acquire(blocking=False)
            if self._lock.acquire(timeout=slice_s):
                return True

    def _attempts(self, payload: bytes, wait: Wait) -> Outcome:
        pauses = back_off()
        for attempt in range(ATTEMPTS):
            outcome = self._sender.send(payload, wait)
            if outcome.came is not Came.LATER:
                return outcome
            pause_s = outcome.delay_s or next(pauses)
            if attempt + 1 == ATTEMPTS or pause_s > wait.left_s() or self._closing.is_set():
                break
            tell(
                ("away", self._server),
                "%s does not take telemetry now (%s); trying again",
                self._server,
                outcome.reason,
            )
            if not self._pause(pause_s, wait):
                break
        return outcome

    def _pause(self, pause_s: float, wait: Wait) -> bool:
        """Whether the whole pause was waited; not so when closing, or when the process leaves."""
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0:
            try:
                slice_s = wait.slice_s()
            except TimeoutError:
                return False
            if self._closing.wait(min(left_s, slice_s)):
                return False
        return True

    def _settled(self, payload: bytes, items: int, outcome: Outcome) -> bool:
        counts = self.counts
        if outcome.came is Came.ACCEPTED:
            rejected = min(outcome.rejected, items)
            counts.accepted += items - rejected
            counts.rejected += rejected
            if outcome.rejected or outcome.reason:
                tell(
                    ("partial", self.signal),
                    "%s took a request and refused %d of its %d %s: %s",
                    self._shown,
                    rejected,
                    items,
                    WHAT[self.signal],
                    outcome.reason or "it gives no reason",
                )
            return True
        if outcome.came is Came.TOO_LARGE:
            return self._in_halves(payload, items, outcome)
        if outcome.came is Came.REFUSED:
            counts.refused += items
            tell(
                ("refused", self.signal, outcome.reason),
                "%s refused %d %s (%s), and they are dropped, as further ones will be; %s",
                self._shown,
                items,
                WHAT[self.signal],
                outcome.reason,
                _remedy(outcome.reason, self.destination),
            )
            return False
        return self._give_up(items, outcome.reason)

    def _give_up(self, items: int, reason: str) -> bool:
        self.counts.lost += items
        named_by = self.destination.named_by if self.destination else ""
        tell(
            ("lost", self._server),
            "telemetry is lost: %s does not take it (%s). Is a collector running there? `hubscope collect` starts one, "
            "%s names another",
            self._server,
            reason,
            named_by,
        )
        return False

    def _in_halves(self, payload: bytes, items: int, outcome: Outcome) -> bool:
        try:
            parts = split.halves(payload, self.signal)
        except ValueError:
            parts = None
        if parts is None:
            self.counts.refused += items
            tell(
                ("too large", self.signal),
                "%s cannot take %d %s of %d bytes in one piece (%s), and they are dropped; keep attributes short",
                self._shown,
                items,
                WHAT[self.signal],
                len(payload),
                outcome.reason,
            )
            return False
        first, second = parts
        taken = self.deliver(*first)
        return self.deliver(*second) and taken


class Nowhere:
    """Stands for a destination that the settings do not give: everything is refused for that reason."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def send(self, payload: bytes, wait: Wait) -> Outcome:
        return Outcome(Came.REFUSED, self._reason)

    def close(self) -> None:
        return

    forget = close


def courier(signal: Signal, destination: Destination | None = None) -> Courier:
    """The courier of a signal; without a destination, of the one that the environment says.

    A wrong endpoint is told on the log, and everything is refused: the application runs all the same.
    """
    try:
        found = destination or settings.destination(signal, os.environ)
    except ConfigError as error:
        tell(("config", str(error)), "no %s are sent: %s; %s", WHAT[signal], error.message, error.remedy)
        return Courier(signal, None, Nowhere(error.message), leaving.leaving)
    return Courier(signal, found, _sender(found), leaving.leaving)


def _sender(destination: Destination) -> Sender:
    if destination.protocol == settings.GRPC:
        from hubscope.exporters.delivery.grpc_sender import GrpcSender

        return GrpcSender(destination)
    if destination.provider:
        from hubscope.exporters.delivery.session_sender import SessionSender

        return SessionSender(destination)
    from hubscope.exporters.delivery.http_sender import HttpSender

    return HttpSender(destination)


def back_off() -> Iterator[float]:
    """Seconds between attempts: doubling from 1 to 30, each by up to a fifth more or less, as the stock exporter."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.8, 1.2)
        pause_s = min(pause_s * 2, MAX_PAUSE_S)


def _remedy(reason: str, destination: Destination | None) -> str:
    if reason.startswith(("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED")):
        return f"correct the credentials in {settings.PREFIX}HEADERS"
    if reason.startswith(("404", "405", "UNIMPLEMENTED", "30")):
        named_by = destination.named_by if destination else ""
        return f"is {named_by} the address of an OTLP receiver, and of {settings.PREFIX}PROTOCOL's kind?"
    return "its own log says more"


_couriers: weakref.WeakSet[Courier] = weakref.WeakSet()


def _start_afresh() -> None:
    leaving.leaving.forget()
    for each in list(_couriers):
        each.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)

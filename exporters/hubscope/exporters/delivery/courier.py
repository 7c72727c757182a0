"""Takes finished requests of one signal to their destination: tries again, splits, and counts what became of each."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, get_args

from hubscope.errors import ConfigError
from hubscope.exporters.delivery import leaving, settings, split
from hubscope.exporters.delivery.drain import FIRST_PAUSE_S, Drain
from hubscope.exporters.delivery.leaving import Leaving, Wait, exit_timeout_s
from hubscope.exporters.delivery.notices import tell
from hubscope.exporters.delivery.outcome import Came, Outcome
from hubscope.exporters.delivery.settings import Destination, Signal
from hubscope.exporters.delivery.spool import Entry, Spool, spool
from hubscope.instrumentation.settings import SPOOL_DIR, SPOOL_MAX_BYTES

MAX_REQUEST_BYTES: Final = 64 << 20  # uncompressed: what OTLP asks a client to keep to, as the stock exporter does
ATTEMPTS: Final = 6  # as the stock exporter, within the request's timeout
BACK_OFF_S: Final = 1.0
MAX_PAUSE_S: Final = 30.0
WHAT: Final = {"traces": "spans", "metrics": "data points", "logs": "log records"}


class Sender(Protocol):
    """One request and its answer. `send` raises nothing; `forget` is called in a forked child."""

    def send(self, payload: bytes, wait: Wait) -> Outcome: ...
    def close(self) -> None: ...
    def forget(self) -> None: ...


@dataclass
class Counts:
    """Items since the process began, by what became of them.

    `rejected` are those of accepted requests; `kept` went into the spool, `resent` out of it (also what others put
    there); `dropped` had to go from the spool for newer ones; `lost` could be neither sent nor kept.
    """

    accepted: int = 0
    rejected: int = 0
    refused: int = 0
    kept: int = 0
    resent: int = 0
    dropped: int = 0
    lost: int = 0


class Courier:
    """Delivers the requests of one signal. Thread-safe; one request is on its way at a time.

    With a spool, what is not accepted at once is kept there, and so is everything that comes while the destination is
    away: whoever exports waits for one failed attempt, and the spool is what is tried again. Without one, an attempt is
    repeated within the destination's timeout, and then the request is lost.
    """

    def __init__(
        self,
        signal: Signal,
        destination: Destination | None,
        sender: Sender,
        leaving: Leaving,
        spool: Spool | None = None,
    ) -> None:
        self.signal = signal
        self.destination = destination
        self.counts = Counts()
        self._sender = sender
        self._leaving = leaving
        self._timeout_s = destination.timeout_s if destination else 0.0
        self._server = destination.server if destination else "nowhere"
        self._lock = threading.Lock()
        self._hurry = threading.Event()  # no pause between attempts any more
        self._closing = threading.Event()
        self._away = False
        self._delay_s = 0.0  # what the destination asked for, at the last attempt
        self._pauses = back_off()
        self.spool = spool
        self._drain = Drain(spool, self._send_kept, self._next_pause_s) if spool else None
        if spool and self._drain and not spool.is_empty():
            self._drain.begin(FIRST_PAUSE_S)
        _couriers.add(self)

    def deliver(self, payload: bytes, items: int) -> bool:
        """Send one request; True when the destination has it for good. Raises nothing.

        Returns after the destination's timeout at the latest, and when the process leaves (`Leaving`).
        """
        if not payload:
            return True
        if len(payload) > MAX_REQUEST_BYTES:
            return self._in_halves(payload, items, Outcome(Came.TOO_LARGE, "it is larger than 64 MiB"))
        if (self._away or self._closing.is_set()) and self._keep(payload, items):
            if self._drain is not None:
                self._drain.begin(self._next_pause_s())  # another process may have emptied the spool meanwhile
            return False
        wait = Wait(self._timeout_s, self._leaving)
        if not self._turn(wait):
            return self._keep_or_lose(payload, items, "another request is still on its way")
        try:
            outcome = self._attempts(payload, wait)
        finally:
            self._lock.release()
        return self._settled(payload, items, outcome)

    def keep(self, payload: bytes, items: int) -> bool:
        """Put a request into the spool without trying to send it; whether it is there, or counted as lost."""
        return not payload or self._keep(payload, items) or self._give_up(items, "there is no time left")

    def stop_pausing(self) -> None:
        """From now on one attempt a request."""
        self._hurry.set()

    def stop_sending(self) -> None:
        """From now on everything goes into the spool at once."""
        self._closing.set()
        self._hurry.set()

    def close(self) -> None:
        """Send what waits, as long as a process that leaves may; then close the connection, unless it is in use."""
        self.stop_sending()
        if self._drain is not None:
            self._drain.finish()
            self._drain.join(Wait(exit_timeout_s(), self._leaving))
        if self._lock.acquire(blocking=False):
            self._sender.close()
            self._lock.release()

    def start_afresh(self) -> None:
        """In a forked child: no connection, thread, lock or count of the parent's."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._hurry = threading.Event()
        self._sender.forget()
        self._away = False
        if self._drain is not None:
            self._drain.forget()
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
            if outcome.came is not Came.LATER or self.spool is not None:
                return outcome
            pause_s = outcome.delay_s or next(pauses)
            if attempt + 1 == ATTEMPTS or pause_s > wait.left_s() or self._hurry.is_set():
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
            if self._hurry.wait(min(left_s, slice_s)):
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
                    self._server,
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
                self._server,
                items,
                WHAT[self.signal],
                outcome.reason,
                _remedy(outcome.reason, self.destination),
            )
            return False
        self._delay_s = outcome.delay_s
        return self._keep_or_lose(payload, items, outcome.reason)

    def _keep_or_lose(self, payload: bytes, items: int, reason: str) -> bool:
        """False: it is not accepted. In the spool it is the next one to be tried."""
        if not self._keep(payload, items):
            return self._give_up(items, reason)
        self._away = True
        tell(
            ("away", self._server),
            "%s does not take telemetry (%s). It is kept in %s and sent when that is back, also by a later start. "
            "`hubscope collect` starts a collector, %s names another",
            self._server,
            reason,
            self.spool.root if self.spool else "",
            self.destination.named_by if self.destination else "",
        )
        if self._drain is not None:
            self._drain.begin(self._next_pause_s())
        return False

    @property
    def unaccepted(self) -> int:
        """Items that a call of `deliver` did not bring to the destination."""
        counts = self.counts
        return counts.refused + counts.kept + counts.lost

    def _keep(self, payload: bytes, items: int) -> bool:
        if self.spool is None:
            return False
        try:
            dropped = self.spool.keep(payload, items)
        except OSError as error:
            tell(
                ("spool", type(error)),
                "nothing can be kept in %s: %s; %s names another folder",
                self.spool.root,
                error,
                SPOOL_DIR,
            )
            return False
        self.counts.kept += items
        if dropped:
            self.counts.dropped += sum(entry.items for entry in dropped)
            tell(
                "full",
                "%s is full: the oldest telemetry in it is dropped for what is new. %s lets it grow",
                self.spool.root,
                SPOOL_MAX_BYTES,
            )
        return True

    def _next_pause_s(self) -> float:
        delay_s, self._delay_s = self._delay_s, 0.0
        return delay_s or next(self._pauses)

    def _send_kept(self, entry: Entry, payload: bytes) -> Came:
        """One attempt at what was kept, for the drain. What it settles is counted here."""
        wait = Wait(self._timeout_s, self._leaving)
        if not self._turn(wait):
            return Came.LATER
        try:
            outcome = self._sender.send(payload, wait)
        finally:
            self._lock.release()
        if outcome.came is Came.LATER:
            self._delay_s = outcome.delay_s
            return Came.LATER
        self._away = False
        self._pauses = back_off()
        if outcome.came is Came.ACCEPTED:
            self.counts.resent += entry.items
            return Came.ACCEPTED
        self._settled(payload, entry.items, outcome)
        return outcome.came

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
                self._server,
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


def courier(signal: Signal, destination: Destination | None = None, environ: Mapping[str, str] = os.environ) -> Courier:
    """The courier of a signal; without a destination, of the one that the environment says.

    A wrong endpoint is told on the log, and everything is refused: the application runs all the same.
    """
    try:
        found = destination or settings.destination(signal, environ)
    except ConfigError as error:
        tell(("config", str(error)), "no %s are sent: %s; %s", WHAT[signal], error.message, error.remedy)
        return Courier(signal, None, Nowhere(error.message), leaving.leaving)
    return Courier(signal, found, _sender(found), leaving.leaving, spool(found, environ))


def send_what_waits(environ: Mapping[str, str]) -> int:
    """Send what programs left in the spool for the destinations that an environment names; how many items went out.

    Takes no longer than a process that leaves may. What is not accepted goes on waiting.
    """
    sent = 0
    for signal in get_args(Signal):
        try:
            found = settings.destination(signal, environ)
        except ConfigError:
            continue  # the program was told
        one = courier(signal, found, environ)
        one.close()
        sent += one.counts.resent
    return sent


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
    pause_s = BACK_OFF_S
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

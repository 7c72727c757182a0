"""Sends what waits in the spool: at the start what an earlier process left, later what could not be sent meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from hubscope.exporters.delivery.leaving import Wait
from hubscope.exporters.delivery.outcome import Came
from hubscope.exporters.delivery.spool import Entry, Spool

_log = logging.getLogger("hubscope")

# An application that starts has better things to do; one that leaves earlier sends when it leaves.
FIRST_PAUSE_S: Final = 2.0
ANOTHER_SENDS_S: Final = 5.0  # when to look again whether the process that has the claim is done


class Drain:
    """A thread while something waits, and none else. `send` is given an entry and its request, and counts."""

    def __init__(
        self,
        spool: Spool,
        send: Callable[[Entry, bytes], Came],
        pause_s: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._send = send
        self._pause_s = pause_s  # after a failed attempt
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._finish = threading.Event()

    def begin(self, pause_s: float) -> None:
        """Something waits: try it after the pause, unless that is under way already."""
        with self._lock:
            if self._thread is not None or self._finish.is_set():
                return
            thread = threading.Thread(target=self._run, args=(pause_s,), daemon=True, name="hubscope-spool")
            try:
                thread.start()
            except RuntimeError:  # the interpreter is too far gone for new threads: the next process sends it
                return
            self._thread = thread

    def finish(self) -> None:
        """No pause any more: send what can be sent now, and end."""
        self._finish.set()

    def join(self, wait: Wait) -> None:
        """Wait for the end of that."""
        thread = self._thread
        while thread is not None and thread.is_alive() and (left_s := wait.left_s()) > 0:
            thread.join(left_s)

    def forget(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._thread = None
        self._lock = threading.Lock()
        self._finish = threading.Event()
        self._spool.forget()

    def _run(self, pause_s: float) -> None:
        try:
            failed = False
            while True:
                if self._finish.wait(pause_s) and failed:
                    return  # it was away a moment ago, and the process cannot wait for it again
                came = self._send_all()
                failed = came is not Came.ACCEPTED
                if not failed and self._ended():
                    return
                pause_s = ANOTHER_SENDS_S if came is None else self._pause_s() if failed else 0.0
        except Exception:  # noqa: BLE001 - never into the application; the entries wait for the next process
            _log.debug("the spool could not be sent", exc_info=True)
            self._thread = None

    def _ended(self) -> bool:
        with self._lock:
            if self._finish.is_set() or self._spool.is_empty():
                self._thread = None
                return True
            return False

    def _send_all(self) -> Came | None:
        """ACCEPTED when nothing waits any more, LATER when the destination is away, None when another process sends."""
        from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            with self._spool.claimed() as ours:
                if not ours:
                    return None
                while waiting := self._spool.waiting():
                    for entry in waiting:
                        payload = self._spool.take(entry)
                        if payload is None:
                            continue
                        if self._send(entry, payload) is Came.LATER:
                            self._spool.put_back(entry)
                            return Came.LATER
                        self._spool.done(entry)
            return Came.ACCEPTED
        finally:
            detach(token)

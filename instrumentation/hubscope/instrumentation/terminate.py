"""SIGTERM, the usual end of a service: send what is waiting, then die of it as before.

Without a handler a process ends at once and its exit handlers never run; uvicorn raises the signal again after its own
clean stop, so the last seconds of every stopped web server would be lost. The handler is installed only where nobody
has one, gives way to any that the application sets, and a forked child is without it. It runs when the main thread next
runs Python: a long call into C code puts the end off until it returns.

A child has to die of SIGTERM at once, because its pool waits for that: with the handler inherited, `Process.start()`
and `terminate()` hung 21 times of 30, and `with Pool(3): pass` twice of 40. Python forgets what a child receives before
it runs (so SIGTERM is held back over the fork), and a signal just before a wait for a semaphore does not end that wait
(so the child has the default action, not a handler that does it).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_handler: Any = None  # ours, once it was installed
_held = threading.local()  # `mask`: the signal mask of a thread that forks, from before


def send_before_sigterm(send: Callable[[], None], timeout_s: float) -> None:
    """Call `send` before the process dies of SIGTERM, for `timeout_s` at most. Only the main thread can ask for it."""
    global _handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # In a thread of its own: the main thread may have been stopped while it held a lock that sending needs.
        sending = threading.Thread(target=send, daemon=True, name="hubscope-sigterm")
        sending.start()
        sending.join(timeout_s)
        os.kill(os.getpid(), signal.SIGTERM)

    _handler = on_sigterm
    signal.signal(signal.SIGTERM, on_sigterm)


def _ours() -> bool:
    return _handler is not None and signal.getsignal(signal.SIGTERM) is _handler


def _before_fork() -> None:
    if _ours():
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_fork() -> None:
    mask = _held.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    if _ours():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)

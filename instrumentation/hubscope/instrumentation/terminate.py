"""SIGTERM, the usual end of a service: send what is waiting, then die of it as before.

Without a handler a process ends at once and its exit handlers never run; uvicorn raises the signal again after its own
clean stop, so the last seconds of every stopped web server would be lost. The handler is installed only where nobody
has one, gives way to any that the application sets, and a forked child dies as if it were not there. It runs when the
main thread next runs Python: a long call into C code puts the end off until it returns.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


def send_before_sigterm(send: Callable[[], None], timeout_s: float) -> None:
    """Call `send` before the process dies of SIGTERM, for `timeout_s` at most. Only the main thread can ask for it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    installed_in = os.getpid()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() == installed_in:
            # In a thread of its own: the main thread may have been stopped while it held a lock that sending needs.
            sending = threading.Thread(target=send, daemon=True, name="hubscope-sigterm")
            sending.start()
            sending.join(timeout_s)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_sigterm)

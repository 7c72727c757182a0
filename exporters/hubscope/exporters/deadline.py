"""A bound for a whole request: a socket's own timeout starts anew with every byte that trickles in."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

_CUT_AGAIN_S: Final = 0.2  # a library may connect a second time


@contextmanager
def deadline(timeout_s: float, sockets: Callable[[], Iterable[socket.socket]]) -> Iterator[None]:
    """Shut the sockets down after the timeout, whoever waits for them; then raise TimeoutError for what came of it."""
    over, cut = threading.Event(), threading.Event()

    def watch() -> None:
        wait_s = timeout_s
        while not over.wait(wait_s):
            cut.set()
            wait_s = _CUT_AGAIN_S
            for found in list(sockets()):
                with contextlib.suppress(OSError):
                    # The plain socket's: a TLS socket's own forgets its session under the thread that reads.
                    socket.socket.shutdown(found, socket.SHUT_RDWR)

    watcher = threading.Thread(target=watch, name="deadline", daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if cut.is_set():
            raise TimeoutError(f"no answer within {timeout_s:g} s") from error
        raise
    finally:
        over.set()
        watcher.join()
    if cut.is_set():
        raise TimeoutError(f"no whole answer within {timeout_s:g} s")

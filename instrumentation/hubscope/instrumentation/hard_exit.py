"""`os._exit` runs no exit handlers: what waits is written into the spool before it, which takes milliseconds.

It is put in place of the function in `os`, as whoever leaves so calls it (`multiprocessing`, servers that reload);
`from os import _exit` done before that, and `posix._exit`, are not seen.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Final

# For writing it down, in a thread of its own: the one that leaves may hold a lock that is needed. A request on its way
# is waited for 0.1 s, and 10,000 spans take 20 ms to write.
LIMIT_S: Final = 0.5


def keep_before_hard_exit(keep: Callable[[], None]) -> None:
    """Call `keep`, for `LIMIT_S` at most, before the process or a forked child ends by `os._exit`."""
    stock = os._exit

    @functools.wraps(stock)
    def leave(status: int) -> Any:
        try:
            keeping = threading.Thread(target=keep, daemon=True, name="hubscope-hard-exit")
            keeping.start()
            keeping.join(LIMIT_S)
        finally:
            stock(status)

    os._exit = leave

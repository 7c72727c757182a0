"""Notice when the process begins to serve: the honest end of a web server's start that nobody announces.

`socket.socket.listen` is what asyncio, socketserver, gunicorn, werkzeug, hypercorn, aiohttp and tornado call. The
`socket.bind` audit event was not chosen: it also fires for sockets that only look for a free port, and an audit hook
can never be removed. uvloop listens inside libuv, so uvicorn's own `Server.startup` is watched too. Unix sockets of
multiprocessing listen as well and say nothing about serving, hence internet sockets only.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any


def watch(seen: Callable[[], None]) -> None:
    """Call `seen` when the first internet socket listens, or uvicorn says that it serves."""
    _watch_sockets(seen)
    _watch_uvicorn(seen)


def _watch_sockets(seen: Callable[[], None]) -> None:
    original = socket.socket.listen

    @functools.wraps(original)
    def listen(self: socket.socket, *args: Any) -> None:
        original(self, *args)
        if self.family in (socket.AF_INET, socket.AF_INET6):
            if vars(socket.socket).get("listen") is listen:
                del socket.socket.listen  # the C method of the base class is underneath
            seen()

    if "listen" not in vars(socket.socket):
        socket.socket.listen = listen  # type: ignore[method-assign, assignment]  # put in on purpose


def _watch_uvicorn(seen: Callable[[], None]) -> None:
    from wrapt import register_post_import_hook

    def wrap(module: Any) -> None:
        server = getattr(module, "Server", None)
        original = getattr(server, "startup", None)
        if server is None or original is None:
            return

        @functools.wraps(original)
        async def startup(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = await original(self, *args, **kwargs)
            if not getattr(self, "should_exit", False):
                seen()
            return result

        server.startup = startup

    register_post_import_hook(wrap, "uvicorn.server")

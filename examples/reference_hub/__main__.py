"""Starts the hub: python -m reference_hub --data DIR [--port 8080] [--version-preset 1|2]

It says `listening on http://…` when it answers, and stops on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from hubscope import instrumentation as hub
from reference_hub import flags, personas, startup
from reference_hub.server import HubServer, shell_page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reference_hub", description="A small, honest AI hub.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what reference_hub.prepare made")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--personas", type=Path, default=personas.DEFAULT_FILE, metavar="FILE", help="who answers")
    flags.add_arguments(parser)
    given = parser.parse_args(arguments)
    chosen = flags.from_arguments(given)
    try:
        app = startup.start(given.data, chosen, given.personas)
        with hub.phase("build_shell"):
            page = shell_page(app)
        hub.first_render()
        with hub.phase("listen"):
            server = HubServer((given.host, given.port), app, page)
    except (ValueError, OSError, OverflowError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # shutdown() waits for the loop that a signal has just interrupted, so it is called from another thread.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    hub.interactive()
    host, port = server.server_address[:2]
    print(
        f"listening on http://{host!s}:{port} with {', '.join(chosen.names()) or 'no known inefficiency'}",
        flush=True,
    )
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    app.store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The front process: receivers, the log, and the telemetry, on one event loop.

    python -m hubscope.collector.front --settings-json @FILE

Says on stdout, in one JSON line, where it listens; ends with 0 after SIGTERM, when everything it took is sealed, and
also when its standard input ends: then the supervisor is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from hubscope.collector.configuration.settings import CollectorSettings, from_json
from hubscope.collector.lock import hold
from hubscope.collector.log.wal import SegmentWriter
from hubscope.collector.receivers import grpc_receiver, http_receiver
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.intake import Intake
from hubscope.collector.telemetry import Telemetry
from hubscope.errors import HubscopeError, LakeError, status_of

GRACE_S: Final = 3.0  # for requests on their way when the stop comes
OLD_FRONT_S: Final = 10.0  # how long a front that is ending may keep the log

_log = logging.getLogger("hubscope.front")


def main(settings: CollectorSettings) -> int:
    """Run until SIGTERM or the end of stdin. Returns the exit code."""
    state_dir = Path(settings.state_dir)
    with hold(state_dir / "front.lock", OLD_FRONT_S):
        try:
            writer = SegmentWriter(
                settings.wal_dir,
                at_least=lowest_number(state_dir),
                seal_age_s=settings.flush_interval_s,
                seal_size_bytes=settings.segment_size_bytes,
            )
        except OSError as error:
            raise LakeError(
                f"{settings.wal_dir}: the log cannot be written: {error.strerror}", "make room, or name another --state"
            ) from error
        if writer.recovery.segments or writer.recovery.torn_bytes:
            found = writer.recovery
            _log.info("recovered %d segments; %d torn bytes cut off", found.segments, found.torn_bytes)
        _raise_file_limit()
        asyncio.run(_serve(settings, writer))
    return 0


def lowest_number(state_dir: Path) -> int:
    """The lowest number a new segment may have: above every exporter's cursor, so that none takes it for an old one."""
    lowest = 1
    with contextlib.suppress(FileNotFoundError):
        for path in (state_dir / "cursors").iterdir():
            with contextlib.suppress(ValueError, OSError):
                lowest = max(lowest, int(path.read_text("ascii")) + 1)
    return lowest


async def _serve(settings: CollectorSettings, writer: SegmentWriter) -> None:
    counters = Counters()
    intake = Intake(writer, settings.limits, counters)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    _stop_when_told(loop, stopping)
    writing = asyncio.create_task(intake.run())
    writing.add_done_callback(lambda _: stopping.set())
    http_socket = http_receiver.listen(settings.http, "OTLP/HTTP", "--http")
    telemetry_socket = http_receiver.listen(settings.telemetry, "telemetry", "--telemetry")
    grpc_server, grpc_port = await grpc_receiver.start(settings, intake, counters)
    otlp = http_receiver.server(http_receiver.OtlpHttp(settings, intake, counters), settings.security)
    telemetry = http_receiver.server(Telemetry(settings, intake, counters))
    serving = [
        asyncio.create_task(otlp.serve([http_socket])),
        asyncio.create_task(telemetry.serve([telemetry_socket])),
    ]
    serving[0].add_done_callback(lambda _: stopping.set())
    while not (otlp.started and telemetry.started) and not any(t.done() for t in serving):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.005)
    gc.collect()
    gc.freeze()  # what is loaded now stays; the collector need not look at it again
    gc.set_threshold(50_000, 20, 50)  # JSON makes many objects and no circles; looking for some took 1.6 us a span
    ports = {"grpc": grpc_port, "http": http_socket.getsockname()[1], "telemetry": telemetry_socket.getsockname()[1]}
    print(json.dumps({"pid": os.getpid(), **ports}), flush=True)

    await stopping.wait()
    otlp.should_exit = telemetry.should_exit = True
    await grpc_server.stop(GRACE_S)
    ended = await asyncio.gather(*serving, return_exceptions=True)
    intake.stop()
    await writing  # raises what ended it, if that was not the stop
    for error in ended:
        if isinstance(error, BaseException):
            raise error


def _stop_when_told(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    if os.name != "nt":
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped already
            loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


def _raise_file_limit() -> None:
    """As many connections as the system allows: the usual soft limit of 1024 is a thousand idle senders."""
    if os.name == "nt":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(arguments: list[str] | None = None) -> int:
    """The command line. An error is a message on stderr and its exit code."""
    parser = argparse.ArgumentParser(prog="hubscope.collector.front")
    parser.add_argument("--settings-json", required=True)
    logging.basicConfig(level=logging.WARNING, format="front: %(message)s", stream=sys.stderr)
    _log.setLevel(logging.INFO)
    try:
        return main(from_json(parser.parse_args(arguments).settings_json))
    except HubscopeError as error:
        print(f"front: {error}", file=sys.stderr)
        return status_of(error).exit_code


if __name__ == "__main__":
    sys.exit(run())

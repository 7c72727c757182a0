"""The front process: receivers, the log, and the telemetry, on one event loop.

    python -m hubscope.collector.front --settings-json @FILE

Says on stdout, in one JSON line, where it listens; ends with 0 after SIGTERM, when everything it took is sealed, and
also when its standard input ends: then the supervisor is gone. On SIGHUP it reads FILE again, and says `reloaded`.
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

from hubscope.collector import logs
from hubscope.collector.configuration.settings import CollectorSettings, from_json
from hubscope.collector.live import Live
from hubscope.collector.lock import hold
from hubscope.collector.log.wal import SegmentWriter
from hubscope.collector.private import keep_files_private
from hubscope.collector.receivers import grpc_receiver, http_receiver
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.intake import Intake
from hubscope.collector.receivers.memory import Memory
from hubscope.collector.receivers.ticks import last_tick, tick
from hubscope.collector.telemetry import Telemetry, is_behind, telemetry_security
from hubscope.errors import HubscopeError, LakeError, status_of
from hubscope.exporters import disk

GRACE_S: Final = 3.0  # for requests on their way when the stop comes
OLD_FRONT_S: Final = 10.0  # how long a front that is ending may keep the log

_log = logging.getLogger("hubscope.front")


def main(settings: CollectorSettings, settings_json: str = "") -> int:
    """Run until SIGTERM or the end of stdin; SIGHUP reads `settings_json` again. Returns the exit code."""
    state_dir = Path(settings.state_dir)
    with hold(state_dir / "front.lock", OLD_FRONT_S):
        try:
            writer = SegmentWriter(
                settings.wal_dir,
                at_least=lowest_number(state_dir),
                seal_age_s=settings.flush_interval_s,
                seal_size_bytes=settings.segment_size_bytes,
                is_opened_later=True,
            )
            writer.open()
        except OSError as error:
            if not disk.is_full(error, str(state_dir)):
                raise LakeError(
                    f"{settings.wal_dir}: the log cannot be written: {error.strerror}", "name another --state"
                ) from error
            _log.warning("%s: %s: nothing is taken until there is room", settings.wal_dir, error.strerror)
        _raise_file_limit()
        asyncio.run(_serve(settings, writer, settings_json))
    return 0


def lowest_number(state_dir: Path) -> int:
    """The lowest number a new segment may have: above every exporter's cursor, so that none takes it for an old one."""
    lowest = 1
    with contextlib.suppress(FileNotFoundError):
        for path in (state_dir / "cursors").iterdir():
            with contextlib.suppress(ValueError, OSError):
                lowest = max(lowest, int(path.read_text("ascii")) + 1)
    return lowest


async def _serve(settings: CollectorSettings, writer: SegmentWriter, settings_json: str) -> None:
    live = Live(settings)
    counters = Counters()
    intake = Intake(writer, settings.limits, counters)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    _stop_when_told(loop, stopping)
    writing = asyncio.create_task(intake.run())
    writing.add_done_callback(lambda _: stopping.set())
    http_socket = http_receiver.listen(settings.http, "OTLP/HTTP", "--http")
    telemetry_socket = http_receiver.listen(settings.telemetry, "telemetry", "--telemetry")
    grpc_server, grpc_port = await grpc_receiver.start(live, intake, counters)
    otlp = http_receiver.server(http_receiver.OtlpHttp(live, intake, counters), settings.security)
    memory = Memory(live, lambda: intake.waiting_bytes > 0 or is_behind(settings))
    intake.pressure = lambda: memory.refusal
    watching = asyncio.create_task(memory.watch())
    telemetry = http_receiver.server(Telemetry(live, intake, counters, memory), telemetry_security(settings))
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
    _reload_when_told(loop, live, intake, (otlp, telemetry), settings_json)

    ticking = asyncio.create_task(tick(intake, lambda: live.settings, stopping))
    await stopping.wait()
    live.stopping = True
    otlp.should_exit = True
    await grpc_server.stop(GRACE_S)
    telemetry.should_exit = True
    watching.cancel()
    ended = await asyncio.gather(*serving, return_exceptions=True)
    await ticking
    if not writing.done():
        await last_tick(intake, live.settings)
    intake.stop()
    await writing  # raises what ended it, if that was not the stop
    for error in ended:
        if isinstance(error, BaseException):
            raise error


def _reload_when_told(
    loop: asyncio.AbstractEventLoop,
    live: Live,
    intake: Intake,
    servers: tuple[http_receiver.Server, ...],
    settings_json: str,
) -> None:
    """On SIGHUP, take the settings that the supervisor has checked and written. What cannot be used changes nothing."""

    def reload() -> None:
        try:
            fresh = from_json(settings_json)
            for server in servers:
                server.renew_certificates(fresh.security)
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.error("the new settings cannot be used and nothing changed: %s", error)
            print(json.dumps({"reloaded": False}), flush=True)
            return
        live.settings = fresh
        intake.limits = fresh.limits
        intake.writer.seal_age_s, intake.writer.seal_size_bytes = fresh.flush_interval_s, fresh.segment_size_bytes
        logs.set_up("front", fresh)
        print(json.dumps({"reloaded": True}), flush=True)

    if os.name != "nt" and settings_json.startswith("@"):
        loop.add_signal_handler(signal.SIGHUP, reload)


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
    keep_files_private()
    logs.set_up("front")
    try:
        settings_json = parser.parse_args(arguments).settings_json
        settings = from_json(settings_json)
        logs.set_up("front", settings)
        return main(settings, settings_json)
    except HubscopeError as error:
        _log.error("%s", error)
        return status_of(error).exit_code


if __name__ == "__main__":
    sys.exit(run())

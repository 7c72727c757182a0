"""What `hubscope doctor` looks at, second half: the ports, the collector, the lake and its log."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hubscope.collector.configuration import values
from hubscope.collector.configuration.addresses import DEFAULT_GRPC, DEFAULT_HTTP, DEFAULT_TELEMETRY, Address
from hubscope.collector.configuration.values import MIB_BYTES
from hubscope.collector.log import dead_letter
from hubscope.collector.private import open_to_others
from hubscope.console.checks import FAIL, OK, WARN, Check
from hubscope.console.collector_link import (
    health,
    is_healthy,
    listening,
    owner,
    recorded,
    waiting,
)
from hubscope.console.options import is_url, state_dir
from hubscope.errors import HubscopeError

BACKLOG_SEGMENTS: Final = 20  # a segment is half a second: ten seconds behind is no longer a hiccup


def ports(lake: str) -> Iterator[Check]:
    """Each usual port is free, or a hubscope collector has it."""
    state = state_dir(lake)
    ours = recorded(state) if state is not None else None
    for address, flag in ((DEFAULT_GRPC, "--grpc"), (DEFAULT_HTTP, "--http"), (DEFAULT_TELEMETRY, "--telemetry")):
        port = address.port
        if not listening(address):
            yield Check(f"port {port}", OK, "free")
            continue
        who = owner(port) or "another process"
        if ours is not None or health(DEFAULT_TELEMETRY) is not None:
            yield Check(f"port {port}", OK, f"a collector listens: {who}")
        else:
            remedy = f"stop it, or choose another port: hubscope collect {flag} 127.0.0.1:{port + 10_000}"
            yield Check(f"port {port}", WARN, f"taken by {who}", remedy)


def collector(lake: str) -> Iterator[Check]:
    """The collector of this lake, if one runs, is healthy."""
    state = state_dir(lake)
    if state is None:
        return
    found = recorded(state)
    if found is None:
        yield Check("collector", OK, "none is running; `hubscope run` starts one when it is needed")
        return
    address = telemetry_address(found)
    answer = health(address, state) if address is not None else None
    if answer is None:
        remedy = f"{_see_log(state)}, end the process, start it again"
        yield Check("collector", FAIL, f"pid {found['pid']} is alive and does not answer at {address}", remedy)
    elif not is_healthy(answer):
        reason = answer.get("reason") or answer.get("status")
        if not answer.get("ready"):
            yield Check("collector", FAIL, f"pid {found['pid']} takes no data: {reason}", _see_log(state))
        elif _is_writing(answer):
            detail = f"pid {found['pid']} writes its lake, but not all gets to a destination: {reason}"
            yield Check("collector", WARN, detail, "mend that destination, or its entry in the configuration")
        else:
            detail = f"pid {found['pid']} takes data and cannot write it: {reason}"
            yield Check("collector", FAIL, detail, f"{_see_log(state)}; nothing is lost, the log keeps it")
    elif not answer.get("worker", {}).get("alive", True):
        detail = f"pid {found['pid']} takes data, and its worker does not write it"
        yield Check("collector", FAIL, detail, f"{_see_log(state)}; nothing is lost, the log keeps it")
    else:
        yield Check("collector", OK, f"pid {found['pid']}, healthy, telemetry at {address}")


def _is_writing(answer: dict[str, Any]) -> bool:
    """Whether the lake gets what is taken, as far as `/healthz` says."""
    lake = answer.get("exporters", {}).get("lake", {})
    return bool(answer.get("worker", {}).get("alive")) and "last_error" in lake and not lake["last_error"]


def _see_log(state: Path) -> str:
    """Where a collector says what is wrong: `hubscope run` gives the one that it starts a file, others have stderr."""
    log = state / "collector.log"
    try:
        is_its = log.stat().st_mtime >= (state / "collector.json").stat().st_mtime - 60.0  # it speaks as it starts
    except OSError:
        is_its = log.is_file()
    return f"see {log}" if is_its else "see what `hubscope collect` says on its terminal, or in the service's journal"


def telemetry_address(record: dict[str, object]) -> Address | None:
    """Where the collector of `collector.json` answers `/healthz`."""
    addresses = record.get("addresses", record)
    text = addresses.get("telemetry") if isinstance(addresses, dict) else None
    try:
        return values.address(str(text)) if text else None
    except ValueError:
        return None


def lake(lake: str) -> Iterator[Check]:
    """The lake can be read and written, and there is room."""
    if not is_url(lake):
        yield from _folder(Path(lake))
        if not Path(lake).is_dir():
            return
    try:
        from hubscope.analytics.connect import connect
        from hubscope.analytics.fetch import fetch
        from hubscope.lake_schema import SCHEMAS

        connection = connect(lake)
        counts = ", ".join(f"(SELECT count(*) FROM {name})" for name in SCHEMAS)  # looks at the end of every file
        _, rows = fetch(connection, f"SELECT (SELECT count(*) FROM otel_traces), {counts}")
    except ModuleNotFoundError as error:
        yield Check(
            "lake", WARN, f"it was not read: module {error.name} is missing", "pip install 'hubscope[analytics]'"
        )
    except HubscopeError as error:
        if not is_url(lake) and not any(Path(lake).glob("otel_*")):
            yield Check("lake", OK, f"nothing is in {lake} yet")
        else:
            yield Check("lake", FAIL, error.message, error.remedy)
    else:
        yield Check("lake", OK, f"{lake} can be read: {rows[0][0]:,} spans")
        yield from _ledger(lake)


def _ledger(lake: str) -> Iterator[Check]:
    """Each line of the ledger is a prediction."""
    from hubscope.analytics import ledger

    path = ledger.path_of(lake)
    if path is None or not path.exists():
        return
    try:
        bad, good = ledger.damaged(path), len(ledger.read(path))
    except HubscopeError as error:
        yield Check("ledger", FAIL, error.message, error.remedy)
        return
    if bad:
        lines = ", ".join(str(one.line) for one in bad[:5]) + (f" and {len(bad) - 5} more" if bad[5:] else "")
        detail = f"no prediction in {path}: line {lines} ({bad[0].because}); {good} others are read"
        yield Check("ledger", WARN, detail, ledger.REMEDY)
    else:
        yield Check("ledger", OK, f"{good} prediction{'s' * (good != 1)}")


def _folder(folder: Path) -> Iterator[Check]:
    from hubscope.collector.configuration.settings import Limits

    nearest = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    if not nearest.is_dir():
        yield Check(
            "lake", FAIL, f"{nearest} is a file, not a folder", "name another folder with --lake or HUBSCOPE_LAKE"
        )
        return
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield Check(
            "lake", FAIL, f"{nearest} cannot be written by this user", "chown or chmod it, or name another lake"
        )
    limits = Limits()
    free_bytes = shutil.disk_usage(nearest).free
    remedy = "make room, or put the lake on another disk with --lake"
    if free_bytes < limits.free_disk_bytes:
        state = FAIL  # the collector takes nothing
    else:
        state = WARN if free_bytes < limits.free_disk_bytes + limits.log_size_bytes else OK  # the log may grow so far
    yield Check("disk", state, f"{free_bytes // MIB_BYTES:,} MiB free at {nearest}", "" if state == OK else remedy)
    if not folder.exists():
        yield Check("lake", OK, f"{folder} does not exist yet; the first data makes it")


def privacy(lake: str) -> Iterator[Check]:
    """Lake, log and dead letters can be read by their owner alone."""
    state = state_dir(lake)
    folders = [Path(lake)] if not is_url(lake) else []
    if state is not None and Path(lake) not in state.parents:
        folders.append(state)
    folders = [folder for folder in folders if folder.is_dir()]
    found = [path for folder in folders for path in open_to_others(folder)]
    if found:
        detail = f"others on this machine can get at {found[0]}" + (f" and {len(found) - 1} more" if found[1:] else "")
        remedy = f"chmod -R go-rwx {' '.join(shlex.quote(str(folder)) for folder in folders)}"
        yield Check("privacy", WARN, detail, remedy)
    elif folders:
        yield Check("privacy", OK, "only this user can read the lake and its log")


def backlog(lake: str) -> Iterator[Check]:
    """What was accepted has also been written."""
    state = state_dir(lake)
    if state is None or not (state / "wal").is_dir():
        return
    found = waiting(state)
    size_mib = sum(_size_bytes(path) for path in found.lake) / MIB_BYTES
    running = recorded(state) is not None
    text = f"{_segments(len(found.lake))}, {size_mib:.1f} MiB wait to be written"
    if found.lake and not running:
        yield Check("log", WARN, f"{text}, and no collector runs", f"hubscope collect --lake {lake} writes them")
    elif len(found.lake) > BACKLOG_SEGMENTS:
        yield Check("log", WARN, f"{text}: the worker is behind", f"{_see_log(state)}: most likely the disk")
    else:
        yield Check("log", OK, text if found.lake else "nothing waits to be written")
    for name, segments in found.destinations.items():
        text = f"{_segments(segments)} in the log wait for {name}"
        if not running:
            yield Check("forwarding", WARN, f"{text}, and no collector runs", "start the collector with its --forward")
        elif segments > BACKLOG_SEGMENTS:
            remedy = f"{_see_log(state)}: the destination is away, or refuses"
            yield Check("forwarding", WARN, f"{text}: the destination is behind", remedy)


def dead_letters(lake: str) -> Iterator[Check]:
    """Nothing that was accepted turned out to be unreadable."""
    state = state_dir(lake)
    if state is None or not (state / "dead-letter").is_dir():
        return
    letters = dead_letter.count(state)
    if letters:
        detail = f"{letters} in {state / 'dead-letter'}, each with its reason beside it"
        yield Check("dead letters", WARN, detail, "read the reasons, mend the sender, then delete the files")
    else:
        yield Check("dead letters", OK, "none")


def _segments(n: int) -> str:
    return f"{n} segment{'s' * (n != 1)}"


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # written and deleted meanwhile

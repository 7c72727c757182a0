"""The collector that `hubscope run` sends to: the one that is there, or one started for it that leaves with it.

A started collector runs in a session of its own, so that Ctrl-C in the terminal ends the program and not what records
it. It stops by itself once no program holds a lease: a file `leases/<pid>` in its state folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hubscope.collector import leases
from hubscope.collector.configuration import values
from hubscope.collector.configuration.addresses import Address
from hubscope.collector.private import make_folder
from hubscope.console import collector_link, lake_checks, other_collectors, otlp_probe, terminal
from hubscope.errors import ConfigError, LakeError, MissingExtraError

READY_DEADLINE_S: Final = 30.0  # imports of Arrow and gRPC take 1 to 3 s; a busy machine takes ten times that
QUERYABLE_DEADLINE_S: Final = 10.0  # the promise is 2 s
END_TIMEOUT_S: Final = 10.0  # it takes 1 s; one that needs longer ends by itself: nobody holds a lease
LEAVING_DEADLINE_S: Final = 15.0  # a collector without leases stays 5 s, and its requests on the way have 8 s
NEIGHBOUR_DEADLINE_S: Final = 10.0  # from listening to the record it takes one 10 ms, on a busy machine a second
STARTS: Final = 3  # two that start at once may want one port: the later one is moved to a free one
POLL_S: Final = 0.05
OTHER_PORTS: Final = (14317, 14318)  # proposed where the usual ones are taken
LOG_KEPT_BYTES: Final = 1 << 20
MIN_FREE_BYTES: Final = 1 << 20  # for its log and the small files of its state; what it needs for data it says itself
# Without any of these the collector does not start; all of them are in hubscope[collector].
_NEEDED: Final = ("deltalake", "grpc", "numpy", "ptars", "pyarrow", "uvicorn", "zstandard")
_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
)


@dataclass(frozen=True)
class Destination:
    """Where the program sends. `endpoint` None leaves the standard variables as they are; `state` is the collector's
    folder where it is on this machine and writes this lake, else None: nothing can be waited for then."""

    note: str
    endpoint: str | None = None
    protocol: str | None = None
    state: Path | None = None


@dataclass(frozen=True)
class Wanted:
    """Where a collector that has to be started listens. `named` are those of the three that the user gave;
    `is_lake_named` is False for the usual lake that nobody asked for."""

    grpc: Address
    http: Address
    telemetry: Address
    named: tuple[str, ...] = ()
    is_lake_named: bool = True


def named_endpoint(environ: Mapping[str, str]) -> str | None:
    """The endpoint that the standard variables name, if any does. Raises ConfigError for those that are none: what is
    sent there is lost, and the program knows it only at its end."""
    named = {name: text for name in _ENDPOINTS if (text := environ.get(name, "").strip())}
    wrong = tuple(f"{name}: got {text!r}" for name, text in named.items() if not _is_endpoint(text))
    if wrong:
        raise ConfigError(
            "nothing can be sent to the endpoint that the environment names, so nothing was started:",
            "give a URL such as http://localhost:4318, or unset it: hubscope then records on this machine",
            wrong,
        )
    return next(iter(named.values()), None)


def _is_endpoint(text: str) -> bool:
    """A URL, or the HOST:PORT that gRPC takes too."""
    try:
        url = urlsplit(text if "://" in text else f"//{text}")
        return bool(url.hostname) and (url.scheme in ("http", "https") or (not url.scheme and url.port is not None))
    except ValueError:
        return False


def check_lake(lake: str) -> None:
    """Raises LakeError for a lake on this machine that a newer hubscope wrote; a remote one its collector asks."""
    if "://" in lake or any(find_spec(module) is None for module in _NEEDED) or not Path(lake).is_dir():
        return
    from hubscope.exporters import lake_version

    lake_version.check_lake(lake)


def find(lake: str, state: Path, wanted: Wanted) -> Destination | None:
    """The collector that already runs: this lake's own, or another OTLP receiver at the usual place; None for neither.

    A hubscope collector of another lake is none of them, unless nobody named a lake and it is there to stay.
    Raises ConfigError where something else has the place: what is sent to it would be lost.
    """
    own = _own(lake, state)
    if own is not None:
        return replace(own, note=f"{own.note}{_not_honoured(state, wanted)}")
    others: list[str] = []
    # HTTP first: an application that speaks gRPC loads grpcio, 30 ms of its start.
    for address, protocol in ((wanted.http, "http/protobuf"), (wanted.grpc, "grpc")):
        if collector_link.listening(address):
            running = other_collectors.at(address)
            if running is not None:
                if not running.is_leased and _serves(running.lake, lake):
                    note = f"recording into {lake} by the collector on {address} (its state is in {running.state})"
                    return Destination(note, f"http://{address}", protocol, running.state)
                if not running.is_leased and not wanted.is_lake_named:
                    note = (
                        f"recording into {running.lake} by the collector on {address} (no --lake was named)"
                        f"\n  see what was found: hubscope report --lake {running.lake}"
                    )
                    return Destination(note, f"http://{address}", protocol)
                continue
            who = collector_link.owner(address.port) or "another process"
            if not otlp_probe.speaks_otlp(address, protocol):
                if not collector_link.listening(address):
                    continue  # it left while we asked
                others.append(f"{address} is taken by {who}, which does not answer as an OTLP receiver ({protocol})")
                continue
            note = f"{who} already listens on {address}; sending there. What it stores may not be in {lake}."
            return Destination(note, f"http://{address}", protocol)
    if others:
        free = f"--grpc {wanted.grpc.host}:{OTHER_PORTS[0]} --http {wanted.http.host}:{OTHER_PORTS[1]}"
        raise ConfigError(
            "nothing can be recorded there, so nothing was started:",
            f"end that process, or take other ports: hubscope run {free} -- …",
            tuple(others),
        )
    return None


def _serves(its_lake: str, lake: str) -> bool:
    if "://" in lake or "://" in its_lake:
        return its_lake == lake
    return os.path.realpath(its_lake) == os.path.realpath(lake)


def _own(lake: str, state: Path) -> Destination | None:
    record = collector_link.recorded(state)
    if record is None or record.get("leaving"):
        return None
    addresses = record.get("addresses", {})
    for name, protocol in (("http", "http/protobuf"), ("grpc", "grpc")):
        address = addresses.get(name) if isinstance(addresses, dict) else None
        if address and collector_link.listening(values.address(str(address))):
            note = f"recording into {lake} by the collector on {address} (pid {record['pid']})"
            return Destination(note, f"http://{address}", protocol, state)
    return None


def _not_honoured(state: Path, wanted: Wanted) -> str:
    """What to say of addresses the user gave where the lake's collector has others: a lake has one collector here."""
    record = collector_link.recorded(state) or {}
    has = record.get("addresses", {})
    missed = [
        f"--{flag} {address} (it has {has[flag]})"
        for flag in wanted.named
        if flag in has and (address := getattr(wanted, flag)).port and str(address) != str(has[flag])
    ]
    if not missed:
        return ""
    return (
        f"\n  it was running before, so not used: {', '.join(missed)}; end it first (pid {record['pid']}), or name"
        " another lake with --lake"
    )


def start(lake: str, state: Path, wanted: Wanted, flags: tuple[str, ...] = ()) -> Destination:
    """Starts a collector, with more of its flags if need be, waits until it takes requests, and says where it is.

    A collector of another lake keeps its ports: this one gets free ones then, and the note says so.
    Raises MissingExtraError, or LakeError with the end of its log where it does not come up.
    """
    for more in reversed(range(STARTS)):
        place, moved = _place(state, wanted)
        try:
            found = _start(lake, state, place, flags)
        except LakeError:
            if not more or not _is_elsewhere_now(state, place):
                raise
        else:
            return replace(found, note=f"{found.note}{moved}")
    raise AssertionError("the last start returns or raises")


def _is_elsewhere_now(state: Path, place: Wanted) -> bool:
    """Whether there is another place than the one where the start failed.

    A collector that came first listens for a moment before it says whose it is: that is waited for. Where it took the
    telemetry's port, the next start takes a free one.
    """
    if collector_link.listening(place.telemetry):
        return True
    deadline = time.monotonic() + NEIGHBOUR_DEADLINE_S
    while _place(state, place)[0] == place:
        is_taken = any(collector_link.listening(address) for address in (place.grpc, place.http))
        if not is_taken or time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _place(state: Path, wanted: Wanted) -> tuple[Wanted, str]:
    """Where to listen, and what to say of it: free ports for those that collectors of other lakes have.

    A port that the user named is waited for where its collector is about to leave: others may send there, too.
    """
    deadline = time.monotonic() + LEAVING_DEADLINE_S
    said = False
    while True:
        has = {flag: other_collectors.at(getattr(wanted, flag)) for flag in ("grpc", "http")}
        others = {flag: running for flag, running in has.items() if running is not None and running.state != state}
        awaited = next(
            (running for flag, running in others.items() if flag in wanted.named and running.is_leaving), None
        )
        if awaited is None or time.monotonic() > deadline:
            break
        if not said:
            terminal.say(f"hubscope: waiting for the collector of {awaited.lake} to leave (pid {awaited.pid})")
            leases.hurry(awaited.state)
            said = True
        time.sleep(POLL_S)
    lines = (f"\n  not on {getattr(wanted, flag)}: the collector of {others[flag].lake} has it" for flag in others)
    grpc, http = (
        Address(address.host, 0) if flag in others else address
        for flag, address in (("grpc", wanted.grpc), ("http", wanted.http))
    )
    return replace(wanted, grpc=grpc, http=http), "".join(lines)


def _start(lake: str, state: Path, wanted: Wanted, flags: tuple[str, ...]) -> Destination:
    if any(find_spec(module) is None for module in _NEEDED):
        raise MissingExtraError("recording on this machine (no endpoint is set and nothing listens)", "collector")
    log = state / "collector.log"
    free_bytes = shutil.disk_usage(state).free
    if free_bytes < MIN_FREE_BYTES:
        raise LakeError(
            f"no collector can be started: {state}: No space left on device ({free_bytes >> 10} KiB free)",
            "make room, or name a lake on another disk with --lake",
        )
    command = [
        *(sys.executable, "-m", "hubscope.console", "collect", "--stop-without-leases"),
        *("--lake", lake, "--state", str(state), "--grpc", str(wanted.grpc), "--http", str(wanted.http)),
        *("--telemetry", str(_free(wanted.telemetry))),
        *flags,
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    try:
        if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.old"))
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
            )
    except OSError as error:
        raise LakeError(f"no collector can be started: {error}", f"check that {state} can be written") from error
    deadline = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < deadline:
        found = _own(lake, state)  # also the one of another `hubscope run` that came first
        answer = _health(state) if found is not None else {}
        if found is not None and answer.get("ready"):
            return found
        if answer.get("status") == "refusing":
            _end(process)
            raise LakeError(
                f"the collector for {lake} takes nothing: {answer.get('reason')}",
                "make room, or name a lake on another disk with --lake",
            )
        if process.poll() is not None and collector_link.recorded(state) is None:
            break
        time.sleep(POLL_S)
    else:
        _end(process)
    ended = f"ended with exit code {process.returncode}" if process.returncode is not None else "is not ready"
    raise LakeError(
        f"the collector for {lake} {ended}:\n{_end_of(log)}", f"its whole log is {log}; see `hubscope doctor`"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a collector that is of no use; what it had accepted, if anything, stays in its log."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)


def _free(address: Address) -> Address:
    """The address, or a port the system chooses where it is taken: the telemetry port is Jupyter's usual one too."""
    return Address(address.host, 0) if collector_link.listening(address) else address


def _health(state: Path) -> dict[str, Any]:
    """What the collector of this state folder says of itself; nothing where none answers."""
    record = collector_link.recorded(state)
    address = lake_checks.telemetry_address(record) if record else None
    return (collector_link.health(address, state) if address is not None else None) or {}


def _end_of(log: Path, lines: int = 8) -> str:
    try:
        text = log.read_text("utf-8", errors="replace")
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


@contextmanager
def lease(state: Path) -> Iterator[None]:
    """Keeps a collector with `--stop-without-leases` alive as long as this process is, at most."""
    path = state / "leases" / str(os.getpid())
    try:
        make_folder(path.parent)
        path.touch(mode=0o600)
    except OSError as error:
        raise LakeError(
            f"{path} cannot be written: {error.strerror or error}", "name another lake with --lake or HUBSCOPE_LAKE"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def wait_until_queryable(state: Path, deadline_s: float = QUERYABLE_DEADLINE_S) -> bool:
    """Waits until all that the collector has accepted is in the lake. False where the deadline comes first."""
    deadline = time.monotonic() + deadline_s
    while not is_queryable(state):
        if time.monotonic() > deadline or collector_link.recorded(state) is None:
            return is_queryable(state)
        time.sleep(POLL_S)
    return True


def stored_segment(state: Path) -> int:
    """The last segment of the log that the lake has; 0 for none."""
    try:
        return int((state / "cursors" / "lake").read_text("ascii"))
    except (OSError, ValueError):
        return 0


def trouble(state: Path) -> str:
    """Why the collector cannot take or write data now, in its own words; empty where it knows of nothing."""
    if collector_link.recorded(state) is None:
        return f"the collector has ended; its log is {state / 'collector.log'}"
    return str(_health(state).get("reason") or "")


def is_queryable(state: Path) -> bool:
    """Whether the lake has every segment of the log: none is open with data, none is sealed and behind the cursor."""
    cursor = stored_segment(state)
    for path in (state / "wal").glob("*"):
        try:
            if path.suffix == ".open" and path.stat().st_size:
                return False
            if path.suffix == ".wal" and int(path.stem) > cursor:
                return False
        except (OSError, ValueError):
            return False  # renamed or deleted while we looked: look again
    return True

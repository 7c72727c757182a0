"""The supervisor: starts front and worker, starts either again when it dies, and stops them in the right order.

It holds no data and touches none, so that it has no reason to fail. Each child is a process of its own, started anew
(never forked from threads), in a session of its own: Ctrl-C in a terminal reaches the supervisor only, which stops the
front first, so that everything acknowledged is sealed, and then lets the worker empty the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from hubscope.collector import leases, logs, notify, reload
from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import CollectorSettings
from hubscope.collector.lock import hold
from hubscope.collector.log.owner import check_lake
from hubscope.collector.log.wal import sealed_segments
from hubscope.collector.private import keep_files_private
from hubscope.errors import EXIT_DONE, EXIT_UNREADABLE, ConfigError, HubscopeError, LakeError
from hubscope.exporters import disk

POLL_S: Final = 0.05
FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
STEADY_S: Final = 10.0  # a child that lived this long starts its back-off anew
START_DEADLINE_S: Final = 60.0  # importing gRPC and Arrow takes 1 to 3 s, on a busy machine ten times that
LEASE_GRACE_S: Final = 5.0
FRONT_STOP_S: Final = 8.0
OLD_COLLECTOR_S: Final = 2.0
LEAVING_COLLECTOR_S: Final = (
    20.0  # one that empties its log for its last program; whoever starts the next waits for 30 s
)
RELOAD_DEADLINE_S: Final = 10.0  # for the front to take the new settings; it takes milliseconds
NO_ROOM_BYTES: Final = 64 << 10  # what the worker waits for
RECORD_AGAIN_S: Final = 1.0
LOOK_AT_LAKE_S: Final = 8.0  # a store that is away takes 4 s to say so; one that answers nothing would take minutes

IN_MEMORY: Final = ("/dev/shm",)  # Linux; the folder made in it is the owner's alone

_log = logging.getLogger("hubscope.supervisor")
# Arrow's own allocator and glibc's arena a thread keep what was freed: at 150,000 spans/s the worker takes 470 MiB with
# them and 360 without, at the same speed. What is larger than 2 MiB goes back to the system when it is freed (50 MiB
# less), and huge pages make up for what asking for it again costs (0.5 µs of 10 a span).
_ALLOCATORS: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2097152",
}


class _Child:
    """One process that is kept alive."""

    def __init__(self, name: str, arguments: list[str], *, talks: bool) -> None:
        self.name = name
        self.restarts = 0
        self._command = [sys.executable, "-m", f"hubscope.collector.{name}", *arguments]
        self._talks = talks
        self._backoff_s = FIRST_BACKOFF_S
        self._renewed_s = 0.0  # when it was asked to end for new settings; 0 is not
        self._renew_grace_s = 0.0
        self._started_s = 0.0
        self._start_again_s = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._started_s = time.monotonic()
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,  # held open as long as we live: its end tells the child that we are gone
            stdout=subprocess.PIPE if self._talks else subprocess.DEVNULL,
            env={**_ALLOCATORS, **os.environ},
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" and self.name == "front" else None,
        )

    def keep(self) -> bool:
        """Start it again if it died and its back-off is over. True when it was started just now."""
        if self.process is None:
            return False
        now_s = time.monotonic()
        if self.process.poll() is None:
            if self._renewed_s and now_s - self._renewed_s > self._renew_grace_s:
                self.process.kill()  # nothing is lost: the log has what it had not written
            return False
        if self._renewed_s:
            self._renewed_s = 0.0
            self._let_go()
            self.start()
            return False
        if not self._start_again_s:
            if now_s - self._started_s > STEADY_S:
                self._backoff_s = FIRST_BACKOFF_S
            self._start_again_s = now_s + self._backoff_s
            say(f"the {self.name} {_how_ended(self.process.returncode)}; starting it again in {self._backoff_s:g} s")
            self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2)
        if now_s < self._start_again_s:
            return False
        self._start_again_s = 0.0
        self.restarts += 1
        self._let_go()
        self.start()
        return True

    def tell(self) -> None:
        """SIGHUP: there are new settings."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def renew(self, grace_s: float) -> None:
        """Let it end where it can, and start it again with the new settings. `keep` sees to the rest."""
        self._renewed_s, self._renew_grace_s = time.monotonic(), grace_s
        self.tell()

    def stop(self, grace_s: float, forced: _Signals) -> None:
        """SIGTERM, and SIGKILL when the grace is over or a second signal came."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            deadline_s = time.monotonic() + grace_s
            while self.process.poll() is None and time.monotonic() < deadline_s and forced.count < 2:
                time.sleep(POLL_S)
            if self.process.poll() is None:
                say(f"the {self.name} did not stop in time and is killed; what it had stays in the log")
                self.process.kill()
                self.process.wait()
        self._let_go()

    def line(self, deadline_s: float, is_given_up: Callable[[], bool] = lambda: False) -> bytes:
        """What it says next on stdout; empty when it ended, the deadline came, or it is given up."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n") and time.monotonic() < deadline_s and not is_given_up():
                if selector.select(POLL_S):
                    part = os.read(self.process.stdout.fileno(), 4096)
                    if not part:
                        return b""
                    line += part
        return line if line.endswith(b"\n") else b""

    def _let_go(self) -> None:
        if self.process is not None:
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


class _Signals:
    """Counts SIGINT and SIGTERM: the first asks for a clean stop, the second forces it. SIGHUP asks for a reload."""

    def __init__(self) -> None:
        self.count = 0
        self.reload = False
        self._has_terminal = os.isatty(0)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGTERM) or (self._has_terminal and not os.isatty(0)):
            self.count += 1  # a SIGHUP of a terminal that was closed is a stop
        else:
            self.reload = True


def run(settings: CollectorSettings, load_again: Callable[[], CollectorSettings] | None = None) -> int:
    """The collector in the foreground, until SIGINT, SIGTERM, or the end of its leases. Returns the exit code.

    `load_again` reads the configuration anew for SIGHUP; it raises ConfigError for one that cannot be used.
    Raises ConfigError for a taken port or a state folder that another collector uses, LakeError when it cannot start
    or the lake is a newer hubscope's: what is accepted for it could never be written.
    """
    keep_files_private()
    logs.set_up("supervisor", settings)
    _check_lake(settings.lake)
    state_dir = Path(settings.state_dir)
    with hold(state_dir / "collector.lock", LEAVING_COLLECTOR_S if settings.stop_without_leases else OLD_COLLECTOR_S):
        try:
            check_lake(state_dir, settings.wal_dir, settings.lake)
        except OSError as error:  # a full disk, which holds nobody up
            _log.warning("%s: which lake it is for cannot be noted: %s", state_dir, error.strerror)
        check_ports(settings)
        signals = _Signals()
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if load_again and os.name != "nt" else [])]
        before = {number: signal.signal(number, signals) for number in numbers}
        record = state_dir / "collector.json"
        try:
            with contextlib.ExitStack() as cleaning:
                return _run(settings, state_dir, record, signals, load_again, cleaning)
        except OSError as error:
            raise LakeError(
                f"{error.filename or state_dir}: {error.strerror or error}",
                "make room, or name another folder with --state; nothing is lost, the log keeps what it has",
            ) from error
        finally:
            record.unlink(missing_ok=True)
            for number, handler in before.items():
                signal.signal(number, handler)


def _run(
    settings: CollectorSettings,
    state_dir: Path,
    record: Path,
    signals: _Signals,
    load_again: Callable[[], CollectorSettings] | None,
    cleaning: contextlib.ExitStack,
) -> int:
    asked = settings
    handed_over = _hand_over(settings, state_dir, cleaning)
    arguments = ["--settings-json", f"@{handed_over}"]
    (state_dir / "restarts.json").unlink(missing_ok=True)
    front = _Child("front", arguments, talks=True)
    worker = _Child("worker", arguments, talks=False)
    front.start()
    worker.start()
    children = (front, worker)
    try:
        said = front.line(time.monotonic() + START_DEADLINE_S, lambda: signals.count > 0)
        if not said:
            if signals.count or _was_told_to_stop(front):
                return EXIT_DONE
            raise _start_failure(front)
        settings = _with_ports(settings, json.loads(said))
        _write_private(handed_over, settings.to_json())  # a front that is started again takes the same ports
        if not _write_where_room(record, json.dumps(_record(settings))):
            say(f"{record} waits for room on its disk; until then `hubscope status` and `run` look for the process")
        say(
            f"OTLP/gRPC on {settings.grpc}, OTLP/HTTP on {settings.http}, /metrics and /healthz on {settings.telemetry}"
        )
        say(f"the lake is {settings.lake}; stop with Ctrl-C")
        notify.notify("READY=1", f"STATUS=Receiving OTLP on {settings.grpc} and {settings.http}")
        reloader = _Reloader(asked, settings, handed_over, (front, worker), load_again)
        _keep(reloader, state_dir, record, children, signals)
        settings = reloader.settings
    finally:
        _mark_leaving(record, settings)
        notify.notify("STOPPING=1", "STATUS=Emptying the log into the lake")
        front.stop(FRONT_STOP_S, signals)
        _await_worker(worker, settings, signals)
        worker.stop(settings.stop_grace_s + 3.0, signals)
    say("stopped")
    return EXIT_DONE


class _Reloader:
    """The settings as they are now, and how they become others while everything runs."""

    def __init__(
        self,
        asked: CollectorSettings,
        settings: CollectorSettings,
        handed_over: Path,
        children: tuple[_Child, _Child],
        load_again: Callable[[], CollectorSettings] | None,
    ) -> None:
        self.settings = settings  # with the ports that were taken
        self._asked = asked  # as they were asked for, port 0 included
        self._handed_over = handed_over
        self._front, self._worker = children
        self._load_again = load_again
        self._rules = reload.digest(asked.rules_path)

    def __call__(self) -> None:
        """Read the configuration anew. One that cannot be used changes nothing, and is said to be so."""
        assert self._load_again is not None
        notify.reloading()
        try:
            fresh = self._load_again()
            rules = reload.digest(fresh.rules_path)
            plan = reload.plan(self._asked, fresh, rules_changed=rules != self._rules)
            now = self.settings
            settings = replace(plan.settings, grpc=now.grpc, http=now.http, telemetry=now.telemetry)
            _write_private(self._handed_over, settings.to_json())
        except (HubscopeError, OSError) as error:
            _log.error("the new configuration is refused and nothing changed: %s", error)
            notify.notify("READY=1", "STATUS=The last reload was refused; the collector goes on as before")
            return
        self._asked, self._rules, self.settings = plan.settings, rules, settings
        logs.set_up("supervisor", settings)
        self._front.tell()
        if plan.renew_worker:
            self._worker.renew(settings.stop_grace_s + 3.0)
        taken = self._is_taken(time.monotonic() + RELOAD_DEADLINE_S)
        _log.info(
            "configuration %s%s%s",
            "reloaded" if taken else "reloaded, but not by the front, whose message is above",
            "; the worker starts anew" if plan.renew_worker else "",
            f"; only a restart changes {', '.join(plan.waiting)}" if plan.waiting else "",
        )
        notify.notify("READY=1", f"STATUS=Receiving OTLP on {settings.grpc} and {settings.http}")

    def _is_taken(self, deadline_s: float) -> bool:
        """Whether the front says that it has the new settings. One that was just started anew has them by itself."""
        while line := self._front.line(deadline_s):
            if b'"reloaded"' in line:
                return b'"reloaded": true' in line
        return False


def _keep(reloader: _Reloader, state_dir: Path, record: Path, children: tuple[_Child, ...], signals: _Signals) -> None:
    """Watch the children until a signal comes, or nobody holds a lease any more."""
    settings = reloader.settings
    leases.take_hurry(state_dir)  # meant for the collector before this one
    last_lease_s = time.monotonic()
    watchdog_s = notify.watchdog_interval_s()
    next_watchdog_s = time.monotonic()
    record = state_dir / "collector.json"
    next_record_s = time.monotonic()
    while not signals.count:
        if time.monotonic() >= next_record_s and not record.exists():
            next_record_s = time.monotonic() + RECORD_AGAIN_S
            if _write_where_room(
                state_dir / "settings.json", reloader.settings.to_json()
            ):  # `status` asks it for a token
                _write_where_room(record, json.dumps(_record(reloader.settings)))
        if signals.reload:
            signals.reload = False
            reloader()
        if watchdog_s is not None and time.monotonic() >= next_watchdog_s:
            notify.notify("WATCHDOG=1")
            next_watchdog_s = time.monotonic() + watchdog_s
        restarted = [child.name for child in children if child.keep()]
        if restarted:
            with contextlib.suppress(OSError):
                _write_private(state_dir / "restarts.json", json.dumps({c.name: c.restarts for c in children}))
        if settings.stop_without_leases:
            if leases.living(state_dir):
                last_lease_s = time.monotonic()
            elif time.monotonic() - last_lease_s > LEASE_GRACE_S or leases.take_hurry(state_dir):
                # Said first, looked at again after; a program takes its lease first, and looks for the mark after.
                _mark_leaving(record, settings)
                if not leases.living(state_dir):
                    say("no program needs this collector any more")
                    return
                _write_private(record, json.dumps(_record(settings)))
        time.sleep(POLL_S)


def _await_worker(worker: _Child, settings: CollectorSettings, signals: _Signals) -> None:
    """Before a stop with segments in the log: let a worker that is just starting, or about to, get as far as working.

    It takes a second to import what it needs, and a SIGTERM in that second would end it with the log untouched.
    """
    deadline_s = time.monotonic() + settings.stop_grace_s
    while sealed_segments(settings.wal_dir) and time.monotonic() < deadline_s and signals.count < 2:
        worker.keep()
        if disk.free_bytes(settings.state_dir) < NO_ROOM_BYTES:
            return  # it cannot work, nor say that it does
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads((Path(settings.state_dir) / "worker.json").read_text("utf-8"))
            if worker.process is not None and said["pid"] == worker.process.pid and worker.process.poll() is None:
                return
        time.sleep(POLL_S)


def _check_lake(lake: str) -> None:
    """`lake_version.check_lake` in a process of its own: the 45 MiB it imports would stay as long as we run."""
    if "://" not in lake and not any(Path(lake).glob("*/_delta_log")):
        return
    command = [sys.executable, "-m", "hubscope.exporters.lake_version", lake]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False, timeout=LOOK_AT_LAKE_S
        )
    except subprocess.TimeoutExpired:
        return  # a store that does not answer: what comes is taken meanwhile, and the worker judges the lake
    if done.returncode == EXIT_UNREADABLE:
        raise LakeError(*json.loads(done.stdout))
    if done.returncode:
        raise LakeError(f"the lake at {lake} could not be looked at; what went wrong is above", "see `hubscope doctor`")


def _was_told_to_stop(front: _Child) -> bool:
    """A service manager's SIGTERM goes to every process of a service, and may reach the front before us."""
    if front.process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return front.process.wait(1.0) == -signal.SIGTERM
    return False


def _start_failure(front: _Child) -> Exception:
    """Why the first start failed; the front has said the rest on stderr."""
    code = None
    if front.process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = front.process.wait(1.0)
    if code == 2:
        return ConfigError("the collector's front refused its configuration; its message is above")
    return LakeError("the collector's front did not start; its message is above", "see `hubscope doctor`")


def check_ports(settings: CollectorSettings) -> None:
    """Raises ConfigError that names every taken port with its owner and its flag."""
    problems: list[str] = []
    places = (("--grpc", settings.grpc), ("--http", settings.http), ("--telemetry", settings.telemetry))
    for flag, address in places:
        if not address.port:
            continue
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name != "nt":  # there, it would let two listen on one port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, address.port))
                probe.listen(1)
            except OSError as error:
                owner = port_owner(address.port)
                reason = f"is taken{f' by {owner}' if owner else ''}" if error.errno in _TAKEN else str(error.strerror)
                problems.append(f"{flag}: {address} {reason}; {flag} HOST:PORT changes it")
    if problems:
        raise ConfigError("the collector cannot listen:", "port 0 takes any free one", tuple(problems))


_TAKEN: Final = (48, 98, 10048)  # EADDRINUSE on macOS, Linux and Windows


def port_owner(port: int) -> str | None:
    """`name (pid n)` of the process that listens on a local port; None where the system does not tell us."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None


def _with_ports(settings: CollectorSettings, ports: dict[str, Any]) -> CollectorSettings:
    return replace(
        settings,
        grpc=Address(settings.grpc.host, ports["grpc"]),
        http=Address(settings.http.host, ports["http"]),
        telemetry=Address(settings.telemetry.host, ports["telemetry"]),
    )


def _record(settings: CollectorSettings) -> dict[str, Any]:
    """collector.json: how `run`, `status` and `doctor` find this collector."""
    addresses = {"grpc": str(settings.grpc), "http": str(settings.http), "telemetry": str(settings.telemetry)}
    return {"pid": os.getpid(), **addresses, "addresses": addresses, "lake": settings.lake, "state": settings.state_dir}


def _mark_leaving(record: Path, settings: CollectorSettings) -> None:
    """Say that nothing should be sent here any more. Where not even that can be written, there is no collector."""
    if not record.exists():
        return
    try:
        _write_private(record, json.dumps({**_record(settings), "leaving": True}))
    except OSError:
        record.unlink(missing_ok=True)


def _hand_over(settings: CollectorSettings, state_dir: Path, cleaning: contextlib.ExitStack) -> Path:
    """The file that front and worker read their settings from. Where its disk is full, one in memory or in the
    system's folder for such files, which goes with us: the front is to run, and to tell senders to come again.

    Raises OSError.
    """
    usual = state_dir / "settings.json"
    if _write_where_room(usual, settings.to_json()):
        return usual
    elsewhere = next((folder for folder in IN_MEMORY if os.access(folder, os.W_OK)), None)
    folder = cleaning.enter_context(tempfile.TemporaryDirectory(prefix="hubscope-", dir=elsewhere))
    path = Path(folder) / usual.name
    _write_private(path, settings.to_json())
    say(f"{state_dir}: its disk is full: what comes is refused until there is room")
    return path


def _write_where_room(path: Path, text: str) -> bool:
    """Whether it was written; not where the disk is full. Raises OSError for what room does not mend."""
    try:
        _write_private(path, text)
    except OSError as error:
        if not disk.is_full(error, str(path.parent)):
            raise
        return False
    return True


def _write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _die_with_parent() -> None:
    """In the child, on Linux: the kernel ends it when the supervisor is killed, which frees the ports and the log."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _how_ended(returncode: int) -> str:
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with {returncode}"


def say(text: str) -> None:
    """Talk goes to stderr, through the log: people read it, or a machine does."""
    _log.info("%s", text)

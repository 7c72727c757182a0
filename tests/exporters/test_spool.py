"""What no collector took waits on disk: whose it is, how much of it, and who sends it. Real processes and servers."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from hubscope.exporters.delivery import notices
from hubscope.exporters.delivery.courier import Courier, _sender
from hubscope.exporters.delivery.leaving import Leaving
from hubscope.exporters.delivery.settings import HTTP, Destination, Signal
from hubscope.exporters.delivery.spool import Spool, default_root, spool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and signals are POSIX's")


class Taking(ThreadingHTTPServer):
    """Takes everything, or hangs; a port of its own that it may come back to."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0, hang: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(handler) -> None:
                self.bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
                if hang:
                    self.over.wait(60)
                    return
                handler.send_response(200)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> int:
        self.over.set()
        self.shutdown()
        self.server_close()
        return int(self.server_address[1])


@pytest.fixture
def taking() -> Iterator[Callable[..., Taking]]:
    servers: list[Taking] = []

    def start(port: int = 0, hang: bool = False) -> Taking:
        servers.append(Taking(port, hang))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    notices._told.clear()


def there(port: int, signal: Signal = "traces", timeout_s: float = 5.0) -> Destination:
    return Destination(signal, HTTP, f"http://127.0.0.1:{port}/v1/{signal}", timeout_s=timeout_s)


def courier(folder: Path, destination: Destination, max_bytes: int = 1 << 20) -> Courier:
    kept = Spool(str(folder), max_bytes, destination)
    return Courier(destination.signal, destination, _sender(destination), Leaving(), kept)


def until(holds: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


def request(number: int) -> bytes:
    """A request as no other, of 100 bytes."""
    return b"\x0a\x62" + b"%098d" % number


def test_what_is_kept_goes_out_when_the_collector_is_back(tmp_path: Path, taking: Any, caplog: Any) -> None:
    """While it is away nobody waits; when it is back each request arrives once, byte for byte, oldest first."""
    port = taking().stop()
    sending = courier(tmp_path / "spool", there(port))
    assert [sending.deliver(request(n), 10) for n in range(5)] == [False] * 5
    assert sending.counts.kept == 50
    assert len(caplog.records) == 1
    assert f"kept in {tmp_path / 'spool'}" in caplog.text
    back = taking(port)
    until(lambda: sending.counts.resent == 50)
    assert back.bodies == [request(n) for n in range(5)]
    until(lambda: sending.deliver(request(9), 1))  # it is not taken for away any more
    assert not list((tmp_path / "spool").rglob("*.otlp"))


def test_what_an_earlier_process_left_is_sent_at_the_next_start(tmp_path: Path, taking: Any) -> None:
    """Also by a process that leaves at once, and not what belongs to another signal or another endpoint."""
    server, other = taking(), taking()
    port = server.server_address[1]
    for destination in (there(port), there(port, "logs"), there(other.server_address[1])):
        Spool(str(tmp_path), 1 << 20, destination).keep(destination.signal.encode(), 1)
    courier(tmp_path, there(port)).close()
    assert server.bodies == [b"traces"]
    assert other.bodies == []
    assert len(list(tmp_path.rglob("*.otlp"))) == 2


def test_a_full_spool_loses_its_oldest(tmp_path: Path, caplog: Any, taking: Any) -> None:
    """Of all destinations together; what had to go is counted and told once, and the folder stays below its size."""
    port = taking().stop()
    older = Spool(str(tmp_path), 1000, there(1, "logs"))
    for number in range(4):
        older.keep(request(number), 3)
    sending = courier(tmp_path, there(port), 1000)
    for number in range(20):
        sending.deliver(request(number), 2)
    left = sorted(tmp_path.rglob("*.otlp"))
    assert sum(path.stat().st_size for path in left) <= 1000
    assert [path.read_bytes() for path in left] == [request(number) for number in range(10, 20)]
    assert sending.counts.dropped == 4 * 3 + 10 * 2
    assert caplog.text.count("HUBSCOPE_SPOOL_MAX_BYTES") == 1
    with pytest.raises(OSError, match="HUBSCOPE_SPOOL_MAX_BYTES"):
        older.keep(b"x" * 1001, 1)
    assert len(list(tmp_path.rglob("*.otlp"))) == 10


def test_others_can_read_nothing(tmp_path: Path) -> None:
    """Folders have mode 0700 and files 0600, whatever the umask; no header and no password of the URL is in them."""
    before = os.umask(0)
    try:
        secret = Destination("traces", HTTP, "https://ada:s3cr3t@h/v1/traces", headers=(("x-token", "t0k3n"),))
        Spool(str(tmp_path / "a" / "spool"), 1 << 20, secret).keep(b"payload", 1)
    finally:
        os.umask(before)
    made = list((tmp_path / "a").rglob("*"))
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a", *made) if p.is_dir()} == {0o700}
    assert {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_file()} == {0o600}
    written = b"".join(p.read_bytes() for p in made if p.is_file()) + "".join(map(str, made)).encode()
    assert b"https://h/v1/traces" in written
    assert b"s3cr3t" not in written
    assert b"t0k3n" not in written


def test_a_request_that_was_cut_short_is_removed(tmp_path: Path, taking: Any) -> None:
    """A power failure may leave less of a file than its name says: that is no request."""
    server = taking()
    kept = Spool(str(tmp_path), 1 << 20, there(server.server_address[1]))
    kept.keep(request(1), 1)
    kept.keep(request(2), 1)
    [first, _] = kept.waiting()
    os.truncate(first.path, 50)
    courier(tmp_path, there(server.server_address[1])).close()
    assert server.bodies == [request(2)]
    assert kept.is_empty()


def test_a_folder_that_cannot_be_written_loses_no_more_than_before(tmp_path: Path, taking: Any, caplog: Any) -> None:
    """Then a request is tried again within its timeout, as without a spool, and the log names the folder's variable."""
    (tmp_path / "file").write_text("no folder")
    sending = courier(tmp_path / "file" / "spool", there(taking().stop(), timeout_s=0.5))
    assert not sending.deliver(request(1), 6)
    assert sending.counts.lost == 6
    assert "HUBSCOPE_SPOOL_DIR" in caplog.text


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the user's state folder unless one is named; a size of 0 keeps nothing."""
    assert default_root(os.environ) == os.path.join(platformdirs.user_state_dir("hubscope", appauthor=False), "spool")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_root(os.environ) == os.path.join(platformdirs.user_state_dir("hubscope", appauthor=False), "spool")
    named = spool(there(1), {"HUBSCOPE_SPOOL_DIR": str(tmp_path)})
    assert named is not None
    assert named.root == str(tmp_path)
    assert spool(there(1), {"HUBSCOPE_SPOOL_MAX_BYTES": "0"}) is None


SENDER = """
import os, signal, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_spool import courier, there
sending = courier(Path(sys.argv[1]), there(int(sys.argv[2]), timeout_s=60))
print("ready", flush=True)
sys.stdin.readline()
sending._drain.begin(0)
thread = sending._drain._thread
sending._drain.finish()
threading.Thread(target=lambda: (thread.join(), print(sending.counts.resent, flush=True), os._exit(0))).start()
if sys.stdin.readline():
    child = os.fork()
    if child:
        print(child, flush=True)
    signal.pause()
"""


def _sending(folder: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SENDER, str(folder), str(port), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_that_share_a_spool_send_each_request_once(tmp_path: Path, taking: Any) -> None:
    """They start together on the same 300 requests, and one of them sends all, while the other waits."""
    server = taking()
    kept = Spool(str(tmp_path), 1 << 20, there(server.server_address[1]))
    processes = [_sending(tmp_path, server.server_address[1]) for _ in range(2)]
    for number in range(300):
        kept.keep(request(number), 1)
    for process in processes:
        _go(process)
    sent = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(sent) == 300
    assert Counter(server.bodies) == Counter(request(number) for number in range(300))


def test_what_a_killed_process_was_sending_is_sent_by_the_next(tmp_path: Path, taking: Any) -> None:
    """Its claim ends with it: the request that hung is not lost, and is the same byte for byte."""
    hanging = taking(hang=True)
    kept = Spool(str(tmp_path), 1 << 20, there(hanging.server_address[1]))
    process = _sending(tmp_path, hanging.server_address[1])
    kept.keep(request(1), 1)
    kept.keep(request(2), 1)
    _go(process)
    until(lambda: hanging.bodies)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    again = taking(hanging.stop())
    courier(tmp_path, there(again.server_address[1])).close()
    assert hanging.bodies == [request(1)]
    assert again.bodies == [request(1), request(2)]


def test_a_forked_child_does_not_hold_its_parent_s_claim(tmp_path: Path, taking: Any) -> None:
    """The parent forks while it sends, and is killed; the child lives on, and another process may send."""
    hanging = taking(hang=True)
    destination = there(hanging.server_address[1])
    process = _sending(tmp_path, hanging.server_address[1])
    Spool(str(tmp_path), 1 << 20, destination).keep(request(1), 1)
    _go(process)
    until(lambda: hanging.bodies)
    assert not _is_free(tmp_path, destination)
    _go(process)  # it forks now
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(10)
    until(lambda: _is_free(tmp_path, destination))
    os.kill(child, signal.SIGKILL)
    process.communicate(timeout=10)


def _is_free(folder: Path, destination: Destination) -> bool:
    with Spool(str(folder), 1 << 20, destination).claimed() as ours:
        return ours

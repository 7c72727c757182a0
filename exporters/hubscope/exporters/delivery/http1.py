"""HTTP/1.1 over a plain socket, as much of it as an OTLP client needs, and every wait in it bounded and interruptible.

Not `http.client`: importing that takes 10 ms of every start, and its waits begin anew with every byte that trickles in.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from hubscope.exporters.delivery.leaving import Wait

if TYPE_CHECKING:
    import ssl

MAX_HEAD_BYTES: Final = 64 << 10
MAX_BODY_BYTES: Final = 1 << 20  # of an answer; an Export…ServiceResponse has a few hundred bytes
_CONNECT_POLL_S: Final = 0.02
_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR})

_T = TypeVar("_T")


class Answer(NamedTuple):
    """`headers` by name in small letters; the last of a name counts. `keep`: the connection can be used again."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    keep: bool


class AnswerError(OSError):
    """What came back is no HTTP answer."""


def connect(host: str, port: int, wait: Wait) -> socket.socket:
    """A connection to the first address that takes one. Raises OSError; TimeoutError is one."""
    failed: OSError | None = None
    for family, kind, protocol, _, address in _addresses(host, port, wait):
        sock = socket.socket(family, kind, protocol)
        try:
            _connect(sock, address, wait)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failed = error
            if isinstance(error, TimeoutError):
                break
        else:
            return sock
    raise failed or OSError(f"{host} has no address")


def _connect(sock: socket.socket, address: Any, wait: Wait) -> None:
    sock.settimeout(wait.slice_s())
    try:
        sock.connect(address)
        return
    except TimeoutError:
        sock.settimeout(0)
    while (code := sock.connect_ex(address)) not in (0, errno.EISCONN):
        if code not in _UNDER_WAY:
            raise OSError(code, errno.errorcode.get(code, "cannot connect"))
        time.sleep(min(wait.slice_s(), _CONNECT_POLL_S))


def _addresses(host: str, port: int, wait: Wait) -> list[Any]:
    if host == "localhost" or ":" in host or host.replace(".", "").isdigit():
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found: list[Any] = []
    failed: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:  # in a thread of its own: nothing can interrupt it
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=look_up, daemon=True, name="hubscope-resolve").start()
    except RuntimeError:  # the interpreter is too far gone for new threads
        look_up()
    while not done.wait(wait.slice_s()):
        continue
    if failed:
        raise failed[0]
    return found


def secured(sock: socket.socket, context: ssl.SSLContext, host: str, wait: Wait) -> ssl.SSLSocket:
    """The connection with TLS on it; `host` is whose certificate is expected. Raises OSError (ssl.SSLError is one)."""
    secure = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        _patiently(secure, secure.do_handshake, wait)
    except BaseException:
        secure.close()
        raise
    return secure


def send_all(sock: socket.socket, content: bytes, wait: Wait) -> None:
    """Like `socket.sendall`. Raises OSError."""
    left = memoryview(content)
    while left:
        # Not more at once: TLS would encrypt the whole, and a slow peer takes it in pieces anyway.
        piece = left[: 256 << 10]
        left = left[_patiently(sock, lambda piece=piece: sock.send(piece), wait) :]  # type: ignore[misc]


def _patiently(sock: socket.socket, call: Callable[[], _T], wait: Wait) -> _T:
    while True:
        sock.settimeout(wait.slice_s())
        try:
            return call()
        except TimeoutError:
            continue


def is_usable(sock: socket.socket) -> bool:
    """Whether an idle connection can be written to: nothing came on it, not even its end."""
    try:
        sock.settimeout(0)
        sock.recv(1)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError as error:
        return type(error).__name__ == "SSLWantReadError"
    return False


def read_answer(sock: socket.socket, wait: Wait) -> Answer:
    """The final answer to a POST. Raises OSError; AnswerError for what is no HTTP."""
    reader = _Reader(sock, wait)
    while True:
        version, status, reason = _status_line(reader.line())
        headers = reader.headers()
        if status == 101 or status >= 200:
            break
    close = headers.get("connection", "").lower()
    keep = "close" not in close and (version != "HTTP/1.0" or "keep-alive" in close)
    if status in (204, 304):
        return Answer(status, reason, headers, b"", keep)
    if headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked":
        body, whole = reader.chunked()
    elif "content-length" in headers:
        length = headers["content-length"].strip()
        if not (length.isascii() and length.isdigit()):
            raise AnswerError(f"no HTTP answer: its Content-Length is {length[:20]!r}")
        size = int(length[:19])
        body, whole = reader.exactly(min(size, MAX_BODY_BYTES)), size <= MAX_BODY_BYTES
    else:
        body, whole = reader.rest(), False
    return Answer(status, reason, headers, body, keep and whole and not reader.buffer)


def read_tunnel(sock: socket.socket, wait: Wait) -> tuple[int, str]:
    """Status and reason of the answer to CONNECT; what follows the head belongs to the tunnel. Raises OSError."""
    reader = _Reader(sock, wait)
    _, status, reason = _status_line(reader.line())
    reader.headers()
    return status, reason


def _status_line(line: bytes) -> tuple[str, int, str]:
    version, _, rest = line.decode("latin-1").partition(" ")
    status, _, reason = rest.strip().partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3 or not (status.isascii() and status.isdigit()):
        raise AnswerError(f"no HTTP answer: it begins with {line[:40]!r}")
    return version, int(status), reason.strip()


class _Reader:
    def __init__(self, sock: socket.socket, wait: Wait) -> None:
        self._sock = sock
        self._wait = wait
        self.buffer = b""

    def _more(self) -> bool:
        """Read on; False at the end."""
        content = _patiently(self._sock, lambda: self._sock.recv(1 << 16), self._wait)
        self.buffer += content
        return bool(content)

    def line(self) -> bytes:
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise AnswerError("no HTTP answer: a line of more than 64 KiB")
            if not self._more():
                raise ConnectionResetError("the connection was closed before the answer was whole")
        line, self.buffer = self.buffer[:end], self.buffer[end + 1 :]
        return line.rstrip(b"\r")

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        size = 0
        while line := self.line():
            size += len(line)
            if size > MAX_HEAD_BYTES:
                raise AnswerError("no HTTP answer: more than 64 KiB of headers")
            name, _, value = line.decode("latin-1").partition(":")
            found[name.strip().lower()] = value.strip()
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self._more():
                raise ConnectionResetError("the connection was closed before the answer was whole")
        content, self.buffer = self.buffer[:size], self.buffer[size:]
        return content

    def chunked(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            text = self.line().partition(b";")[0].strip()
            try:
                size = int(text, 16)
            except ValueError:
                size = -1
            if size < 0 or len(text) > 16:
                raise AnswerError(f"no HTTP answer: a chunk of {text[:20]!r} bytes")
            if size == 0:
                self.headers()
                return body, True
            if len(body) + size > MAX_BODY_BYTES:
                return body, False
            body += self.exactly(size)
            self.line()

    def rest(self) -> bytes:
        while len(self.buffer) < MAX_BODY_BYTES and self._more():
            continue
        content, self.buffer = self.buffer, b""
        return content

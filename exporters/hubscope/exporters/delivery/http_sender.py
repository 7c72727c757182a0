"""OTLP/HTTP: binary protobuf over one kept connection. Redirects are not followed."""

from __future__ import annotations

import os
import socket
import time
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from hubscope.exporters.delivery import http1
from hubscope.exporters.delivery.leaving import Wait
from hubscope.exporters.delivery.outcome import Came, Outcome, accepted, status_message, text
from hubscope.exporters.delivery.proxies import proxy_of

if TYPE_CHECKING:
    import ssl

    from hubscope.exporters.delivery.settings import Destination

RETRYABLE: Final = frozenset({429, 502, 503, 504})  # OTLP 1.11, "Retryable Response Codes"
_TOO_LARGE: Final = 413
_PORTS: Final = {"http": 80, "https": 443}


class HttpSender:
    """One connection to one URL. Not thread-safe: one call at a time."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._url = urlsplit(destination.endpoint)
        self._body = COMPRESSION[destination.compression]
        self._sock: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._head = b""

    def send(self, payload: bytes, wait: Wait) -> Outcome:
        """Send one request and wait for its answer. Raises nothing."""
        body = self._body(payload)
        try:
            # A server closes idle connections; where it did so under our request, it has not answered it either.
            reused = self._sock is not None and http1.is_usable(self._sock)
            try:
                answer = self._exchange(body, wait, reused=reused)
            except (ConnectionError, http1.AnswerError):
                if not reused:
                    raise
                answer = self._exchange(body, wait, reused=False)
        except (OSError, ValueError) as error:  # ValueError: a proxy's address that is none, a host that is no name
            self.close()
            return Outcome(Came.LATER, _text(error))
        if not answer.keep:
            self.close()
        return outcome_of(answer.status, answer.reason, answer.headers, answer.body)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # In a forked child: closing there closes the child's copy alone, and says nothing to the server.
    forget = close

    def _exchange(self, body: bytes, wait: Wait, *, reused: bool) -> http1.Answer:
        if not reused:
            self.close()
            self._sock = self._connected(wait)
        sock = self._sock
        assert sock is not None
        head = self._head + b"content-length: %d\r\n\r\n" % len(body)
        # One packet for most requests; a large body is not copied behind its head.
        if len(body) < 1 << 16:
            http1.send_all(sock, head + body, wait)
        else:
            http1.send_all(sock, head, wait)
            http1.send_all(sock, body, wait)
        return http1.read_answer(sock, wait)

    def _connected(self, wait: Wait) -> socket.socket:
        url = self._url
        host, port = url.hostname or "", url.port or _PORTS[url.scheme]
        proxy = proxy_of(url, os.environ)
        if url.scheme == "https":
            self._tls()  # a file that cannot be used is known before anybody is bothered
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        extra: dict[str, str] = {}
        if proxy is None:
            sock = http1.connect(host, port, wait)
        else:
            if proxy.scheme not in _PORTS or (proxy.scheme, url.scheme) == ("https", "https"):
                raise ValueError(
                    f"a proxy of scheme {proxy.scheme!r} cannot be used for {url.scheme}; name one of http"
                )
            sock = http1.connect(proxy.hostname or "", proxy.port or _PORTS[proxy.scheme], wait)
            if proxy.scheme == "https":
                sock = http1.secured(sock, self._tls(), proxy.hostname or "", wait)
            if url.scheme == "https":
                _tunnel(sock, host, port, proxy, wait)
            else:
                target = f"{url.scheme}://{_netloc(url)}{target}"
                extra = _credentials("proxy-authorization", proxy)
        if url.scheme == "https":
            sock = http1.secured(sock, self._tls(), host, wait)
        self._head = self._request_head(target, extra)
        return sock

    def _request_head(self, target: str, extra: dict[str, str]) -> bytes:
        from hubscope.exporters.delivery import USER_AGENT

        headers = {
            "host": _netloc(self._url),
            "content-type": "application/x-protobuf",
            "user-agent": USER_AGENT,
            **_credentials("authorization", self._url),
            **extra,
        }
        if self._destination.compression != "none":
            headers["content-encoding"] = self._destination.compression
        headers.update(self._destination.headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {target} HTTP/1.1\r\n{lines}".encode("latin-1", "replace")

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self._destination)
        return self._context


def tls_context(destination: Destination) -> ssl.SSLContext:
    """What the destination's certificate is checked by. Raises OSError, with the file, for one that cannot be used."""
    import ssl

    # requests, and so the stock exporter, takes these two where no variable of OpenTelemetry's names a file.
    ca = destination.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
    folder = os.path.isdir(ca)
    try:
        context = ssl.create_default_context(cafile=None if folder else ca or None, capath=ca if folder else None)
    except OSError as error:
        raise OSError(f"the CA file {ca} cannot be used ({error}); OTEL_EXPORTER_OTLP_CERTIFICATE names it") from error
    if not ca:
        try:  # what requests trusts: the system's roots are not there for every Python on macOS
            import certifi
        except ImportError:
            pass
        else:
            context.load_verify_locations(certifi.where())
    if destination.cert_file:
        try:
            # An encrypted key is an error, not a prompt.
            context.load_cert_chain(destination.cert_file, destination.key_file or None, password="")
        except OSError as error:
            raise OSError(
                f"the client certificate {destination.cert_file} cannot be used ({error}); "
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY name it"
            ) from error
    return context


def outcome_of(status: int, reason: str, headers: Any, body: bytes) -> Outcome:
    """What an answer means (OTLP 1.11, "OTLP/HTTP Response"). `headers` by name in small letters."""
    if 200 <= status < 300:
        return accepted(body)
    said = status_message(body) if "protobuf" in headers.get("content-type", "") else ""
    told = f"{status} {text(reason.encode())}".strip() + (f": {said}" if said else "")
    if status in RETRYABLE:
        return Outcome(Came.LATER, told, retry_after_s(headers.get("retry-after", "")))
    return Outcome(Came.TOO_LARGE if status == _TOO_LARGE else Came.REFUSED, told)


def retry_after_s(header: str) -> float:
    """Seconds from a Retry-After header: a number or a date (RFC 9110, 10.2.3). 0 for none, or for neither of them."""
    said = header.strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    if not said:
        return 0.0
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _tunnel(sock: socket.socket, host: str, port: int, proxy: SplitResult, wait: Wait) -> None:
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {at} HTTP/1.1", f"host: {at}"]
    lines += [f"{name}: {value}" for name, value in _credentials("proxy-authorization", proxy).items()]
    http1.send_all(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"), wait)
    status, reason = http1.read_tunnel(sock, wait)
    if not 200 <= status < 300:
        raise OSError(f"the proxy {proxy.hostname} refused: {status} {reason}")


def _credentials(header: str, url: SplitResult) -> dict[str, str]:
    """Basic authentication by the user and password of a URL."""
    if url.username is None:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {header: f"Basic {b64encode(pair.encode()).decode()}"}


def _netloc(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2]


def _gzip(body: bytes) -> bytes:
    # Level 1: telemetry shrinks to a tenth at any level, and this one costs a fifth of the default's time.
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


COMPRESSION: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": lambda body: body,
    "gzip": _gzip,
    "deflate": lambda body: zlib.compress(body, 1),  # zlib's format, as HTTP and the stock exporter mean it
}


def _text(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text(said.encode()) or type(error).__name__

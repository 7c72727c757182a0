"""Where to send and how, as OTEL_EXPORTER_OTLP_* say it: each variable read as the stock exporters read it.

The tests hold this against the stock exporters for the same environments. Where those fail on a wrong value (a timeout
over gRPC, a compression) or lose every batch because of it (an address that is none), here the variable is named with
the remedy, once, and the default holds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from hubscope.errors import ConfigError

_log = logging.getLogger("hubscope")

Signal = Literal["traces", "metrics", "logs"]
GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
PREFIX: Final = "OTEL_EXPORTER_OTLP_"
DEFAULT_TIMEOUT_S: Final = 10.0
_PROVIDER: Final = "OTEL_PYTHON_EXPORTER_OTLP_{protocol}_{signal}CREDENTIAL_PROVIDER"
_COMPRESSIONS: Final = {HTTP: ("none", "gzip", "deflate"), GRPC: ("none", "gzip")}


@dataclass(frozen=True)
class Destination:
    """Where one signal goes.

    `endpoint` is the whole URL over HTTP and `host:port` over gRPC; `named_by` the variable that said it. Files are
    PEM, '' for none. `insecure` is gRPC's: plain text. `provider` is an entry point of
    `opentelemetry_otlp_credential_provider`: a `requests.Session` over HTTP, `grpc.ChannelCredentials` over gRPC.
    """

    signal: Signal
    protocol: str
    endpoint: str
    named_by: str = PREFIX + "ENDPOINT"
    headers: tuple[tuple[str, str], ...] = ()  # they may be secrets: no message and no file holds them
    timeout_s: float = DEFAULT_TIMEOUT_S
    compression: str = "none"
    ca_file: str = ""
    key_file: str = ""
    cert_file: str = ""
    insecure: bool = False
    provider: str = ""

    @property
    def shown(self) -> str:
        """The endpoint for people and files: without a user and password."""
        if self.protocol == GRPC:
            return f"{'http' if self.insecure else 'https'}://{self.endpoint.rpartition('@')[2]}"
        url = urlsplit(self.endpoint)
        return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()

    @property
    def server(self) -> str:
        """Host and port for people."""
        return urlsplit(self.shown).netloc or self.shown


def destination(signal: Signal, environ: Mapping[str, str]) -> Destination:
    """What the environment says for that signal. Raises ConfigError for an endpoint that is no address."""
    protocol = _protocol(signal, environ)
    return _grpc(signal, environ) if protocol == GRPC else _http(signal, environ)


def _names(signal: Signal, what: str) -> tuple[str, str]:
    return f"{PREFIX}{signal.upper()}_{what}", f"{PREFIX}{what}"


def _said(signal: Signal, what: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that counts and what it says, '' where neither is set."""
    own, general = _names(signal, what)
    return (own, environ[own]) if environ.get(own) else (general, environ.get(general, ""))


def _protocol(signal: Signal, environ: Mapping[str, str]) -> str:
    name, said = _said(signal, "PROTOCOL", environ)
    said = said.strip()
    if said in (GRPC, HTTP):
        return said
    if said == "http/json":
        _log.warning("hubscope: %s: http/json is not written here; using %s, which servers take there too", name, HTTP)
        return HTTP
    if said:
        _log.warning("hubscope: %s: expected %s or %s, got %r; using %s", name, GRPC, HTTP, said, GRPC)
    return GRPC  # the stock Python exporter's default


def _http(signal: Signal, environ: Mapping[str, str]) -> Destination:
    name, said = _said(signal, "ENDPOINT", environ)
    endpoint = said
    if name != _names(signal, "ENDPOINT")[0]:
        endpoint = f"{(said or 'http://localhost:4318').removesuffix('/')}/v1/{signal}"
    try:
        url = urlsplit(endpoint)
        wrong = url.scheme not in ("http", "https") or not url.hostname or url.port == 0
    except ValueError:
        wrong = True
    if wrong:
        raise ConfigError(
            f"{name}: expected a URL as http://localhost:4318, got {said!r}", f"set {name} to one, or unset it"
        )
    return Destination(
        signal,
        HTTP,
        endpoint,
        name,
        headers=_headers(signal, environ),
        timeout_s=_timeout_s(signal, environ),
        compression=_compression(signal, HTTP, environ),
        ca_file=_said(signal, "CERTIFICATE", environ)[1],
        key_file=_said(signal, "CLIENT_KEY", environ)[1],
        cert_file=_said(signal, "CLIENT_CERTIFICATE", environ)[1],
        # Here the variable for all signals comes first, which is the stock exporter's order.
        provider=environ.get(_PROVIDER.format(protocol="HTTP", signal=""), "")
        or environ.get(_PROVIDER.format(protocol="HTTP", signal=f"{signal.upper()}_"), ""),
    )


def _grpc(signal: Signal, environ: Mapping[str, str]) -> Destination:
    name, said = _said(signal, "ENDPOINT", environ)
    endpoint = said or "http://localhost:4317"
    try:
        url = urlsplit(endpoint)
        wrong = url.scheme in ("http", "https") and not url.hostname
        _ = url.port if url.netloc else 0  # raises ValueError for one that is none
    except ValueError:
        wrong = True
    if wrong:
        raise ConfigError(
            f"{name}: expected a URL as http://localhost:4317, got {said!r}", f"set {name} to one, or unset it"
        )
    insecure = _insecure(signal, url.scheme, environ)
    files, provider = ("", "", ""), ""
    if not insecure:
        # Keys and certificates count where a CA file of the same scope is named; the signal's own scope comes first.
        own = f"{signal.upper()}_"
        told_plain = environ.get(f"{PREFIX}{own}INSECURE", "").lower() == "true"
        scope = own if f"{PREFIX}{own}CERTIFICATE" in environ and not told_plain else ""
        provider = environ.get(_PROVIDER.format(protocol="GRPC", signal=scope), "")
        if ca_file := environ.get(f"{PREFIX}{scope}CERTIFICATE"):
            files = (
                ca_file,
                environ.get(f"{PREFIX}{scope}CLIENT_KEY", ""),
                environ.get(f"{PREFIX}{scope}CLIENT_CERTIFICATE", ""),
            )
    return Destination(
        signal,
        GRPC,
        url.netloc or endpoint,
        name,
        headers=_headers(signal, environ),
        timeout_s=_timeout_s(signal, environ),
        compression=_compression(signal, GRPC, environ),
        ca_file=files[0],
        key_file=files[1],
        cert_file=files[2],
        insecure=insecure,
        provider=provider,
    )


def _insecure(signal: Signal, scheme: str, environ: Mapping[str, str]) -> bool:
    own, general = _names(signal, "INSECURE")
    if scheme == "https":
        return False
    for name in (own, general):
        if name in environ:
            return environ[name].lower() == "true"
    return scheme == "http"


def _headers(signal: Signal, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    name, said = _said(signal, "HEADERS", environ)
    if not said:
        return ()
    from opentelemetry.util.re import parse_env_headers

    headers = parse_env_headers(said, liberal=True)
    kept = {key: value for key, value in headers.items() if value.isprintable() and value.isascii()}
    for key in headers.keys() - kept.keys():
        _log.error(
            "hubscope: %s: the value of %r holds what no header can (a line break, or other than ASCII), so it is not "
            "sent; correct it",
            name,
            key,
        )
    return tuple(kept.items())


def _timeout_s(signal: Signal, environ: Mapping[str, str]) -> float:
    name, said = _said(signal, "TIMEOUT", environ)
    if not said:
        return DEFAULT_TIMEOUT_S
    try:
        timeout_s = float(said)
    except ValueError:
        timeout_s = 0.0
    if 0 < timeout_s < float("inf"):
        return timeout_s
    _log.warning("hubscope: %s: expected seconds above 0, got %r; using %g", name, said, DEFAULT_TIMEOUT_S)
    return DEFAULT_TIMEOUT_S


def _compression(signal: Signal, protocol: str, environ: Mapping[str, str]) -> str:
    name, said = _said(signal, "COMPRESSION", environ)
    wanted = said.lower().strip() or "none"
    if wanted in _COMPRESSIONS[protocol]:
        return wanted
    known = " or ".join(_COMPRESSIONS[protocol])
    _log.warning("hubscope: %s: expected %s over %s, got %r; sending uncompressed", name, known, protocol, said)
    return "none"

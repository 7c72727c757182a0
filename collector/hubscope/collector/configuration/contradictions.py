"""What is wrong with settings only in combination. Each problem names its path, its flag, and the ways out."""

from __future__ import annotations

import os
import posixpath
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hubscope.collector.configuration.values import is_loopback, reaches

if TYPE_CHECKING:  # settings imports this module
    from hubscope.collector.configuration.settings import CollectorSettings, Security

WAYS_OUT: Final = (
    "give receivers.tls with client_ca_file (only clients whose certificate that CA signed), "
    "or receivers.auth.bearer_token_file (only senders with a token), "
    "or say --insecure if everybody who can reach it is meant"
)


def contradictions(settings: CollectorSettings) -> list[str]:
    """Every problem, in the order of the file."""
    return [
        *_tls(settings.security),
        *_exposed(settings),
        *_ports(settings),
        *_circles(settings),
        *_sizes(settings),
        *_tiers(settings),
    ]


def is_guarded(security: Security) -> bool:
    """Whether only known senders get in. TLS alone hides what is sent; it lets everybody send."""
    return bool(security.bearer_tokens or (security.cert_file and security.client_ca_file))


def _tls(security: Security) -> Iterator[str]:
    if bool(security.cert_file) != bool(security.key_file):
        missing = "key_file" if security.cert_file else "cert_file"
        yield f"receivers.tls.{missing}: must be given too: TLS needs a certificate and its key"
    elif security.cert_file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(security.cert_file, security.key_file, password="")
        except (OSError, ValueError) as error:  # an SSLError is an OSError; ValueError: the key wants a password
            yield (
                f"receivers.tls.key_file: {security.cert_file} and {security.key_file} are no certificate and its "
                f"unencrypted key in PEM ({_reason(error)})"
            )
        else:
            yield from _expired(security.cert_file, security.key_file)
    if security.client_ca_file:
        if not security.cert_file:
            yield "receivers.tls.cert_file: must be given too: mutual TLS needs the server's certificate"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(security.client_ca_file)
        except OSError as error:
            yield f"receivers.tls.client_ca_file: {security.client_ca_file} holds no PEM certificate ({_reason(error)})"


def _expired(cert_file: str, key_file: str) -> Iterator[str]:
    """A handshake in memory with a client that trusts this very certificate: what it still refuses is its dates."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert_file, key_file, password="")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cert_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
                yield f"receivers.tls.cert_file: {cert_file}: {error.verify_message}; every client would refuse it"
            return
        except ssl.SSLError:
            return  # what cannot be told here is told by the first client


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def _exposed(settings: CollectorSettings) -> Iterator[str]:
    if settings.security.insecure or is_guarded(settings.security):
        return
    for path, flag, address in places(settings):
        if not is_loopback(address.host):
            yield f"{path} ({flag}): {address} can be reached from other machines by anybody; {WAYS_OUT}"


def _ports(settings: CollectorSettings) -> Iterator[str]:
    found = places(settings)
    for index, (path, flag, address) in enumerate(found):
        for other_path, _, other in found[:index]:
            if address.port and address == other:
                yield f"{path} ({flag}): {address} is taken by {other_path}; each needs its own port"


def places(settings: CollectorSettings) -> tuple[tuple[str, str, Any], ...]:
    """(path, flag, address) of all that listens."""
    return (
        ("receivers.grpc.endpoint", "--grpc", settings.grpc),
        ("receivers.http.endpoint", "--http", settings.http),
        ("telemetry.endpoint", "--telemetry", settings.telemetry),
    )


def _circles(settings: CollectorSettings) -> Iterator[str]:
    for destination in settings.forward:
        url = urlsplit(destination.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        if any(
            address.port == port and reaches(url.hostname or "", address.host) for _, _, address in places(settings)
        ):
            yield f"exporters.forward: {destination.url} is this collector itself; it would send everything in a circle"


def _sizes(settings: CollectorSettings) -> Iterator[str]:
    limits = settings.limits
    if limits.waiting_size_bytes < limits.request_size_bytes:
        yield (
            f"receivers.max_waiting_size: must be at least receivers.max_request_size "
            f"({limits.request_size_bytes} B), got {limits.waiting_size_bytes} B"
        )


def _resolved(place: str) -> str:
    """A folder or URL in the one spelling that can be compared with another's: without links, `..` and `file://`."""
    scheme, has_scheme, rest = place.partition("://")
    if not has_scheme:
        return os.path.realpath(place)
    if scheme.lower() == "file":
        return os.path.realpath(f"/{rest.removeprefix('localhost').lstrip('/')}")
    return f"{scheme.lower().replace('s3a', 's3')}://{posixpath.normpath(rest)}"


def _tiers(settings: CollectorSettings) -> Iterator[str]:
    keep = settings.keep
    if keep.cold_url and not keep.cold_after_s:
        yield "exporters.lake.cold_after: must be given too: when does a day go to exporters.lake.cold_url?"
    lake, cold = _resolved(settings.lake), _resolved(keep.cold_url)
    if keep.cold_url and lake == cold:
        yield "exporters.lake.cold_url: is the lake itself; without it cold days stay there"
    elif keep.cold_url and (cold.startswith(f"{lake}/") or lake.startswith(f"{cold}/")):
        where = "inside the lake" if cold.startswith(lake) else "a folder that the lake stands in"
        yield f"exporters.lake.cold_url: {cold} is {where} ({lake}); name a folder beside it, or elsewhere"
    if 0 < keep.retention_s <= keep.cold_after_s:
        yield "exporters.lake.retention: must be longer than exporters.lake.cold_after, or no day is ever cold"

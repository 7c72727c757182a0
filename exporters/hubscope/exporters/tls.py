"""How a destination is known to be the right one, and how it knows us."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any, NamedTuple

from hubscope.errors import RetryableError
from hubscope.exporters.base import retryable


@dataclass(frozen=True)
class Tls:
    """Empty strings: the system's roots, and no certificate of our own. All files are PEM."""

    ca_file: str = ""
    cert_file: str = ""  # ours, with key_file: mutual TLS
    key_file: str = ""
    insecure_skip_verify: bool = False  # encrypted, but to whoever answers


def ssl_context(tls: Tls) -> ssl.SSLContext:
    """A client's context. Raises OSError (ssl.SSLError is one) for a file that cannot be read or is no PEM."""
    context = ssl.create_default_context(cafile=tls.ca_file or None)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # an encrypted key is an error, not a prompt
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Shown(NamedTuple):
    """The certificate that a server showed, as PEM, and a name that stands in it."""

    pem: bytes
    name: str


def shown_certificate(host: str, port: int, timeout_s: float) -> Shown:
    """For gRPC, whose library cannot skip the check: what the server shows is trusted as if it were a root.

    Raises RetryableError where nobody answers, or the certificate cannot be trusted even so (its dates).
    """
    try:
        pem = ssl.get_server_certificate((host, port), timeout=timeout_s)
        context = ssl.create_default_context(cadata=pem)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            found: dict[str, Any] = dict(secure.getpeercert() or {})
    except (OSError, ValueError) as error:
        raise _unseen(host, port, error) from error
    names = [name for _, name in found.get("subjectAltName", ())]
    common = [part[0][1] for part in found.get("subject", ()) if part[0][0] == "commonName"]
    return Shown(pem.encode(), (names or common or [host])[0])


def _unseen(host: str, port: int, error: Exception) -> RetryableError:
    return retryable(f"{host}:{port}: no certificate was seen: {error}")

"""OTLP over gRPC. Raw bytes come in and are parsed here, so that bad bytes are INVALID_ARGUMENT and not INTERNAL.

`grpc.aio` and not the threaded server, whose ten workers 64 slow streams hold up for everybody.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # ships no types
import grpc.aio  # type: ignore[import-untyped]  # ships no types

from hubscope.collector.configuration.settings import Security
from hubscope.collector.live import Live
from hubscope.collector.otlp.large import LARGE_BYTES
from hubscope.collector.otlp.requests import KINDS, Kind, count_items
from hubscope.collector.receivers import statuses
from hubscope.collector.receivers.counters import Counters
from hubscope.collector.receivers.intake import Intake
from hubscope.errors import BadInputError, ConfigError, RetryableError

TRANSPORT: Final = "grpc"
MESSAGE_TIMEOUT_S: Final = 60.0  # a sender this slow holds a call, and nobody else up

_log = logging.getLogger(__name__)


async def start(live: Live, intake: Intake, counters: Counters) -> tuple[grpc.aio.Server, int]:
    """A listening server and its port. Raises ConfigError for an address that cannot be bound."""
    settings = live.settings
    limit_bytes = settings.limits.request_size_bytes
    server = grpc.aio.server(
        options=(
            # gRPC's core compares both the compressed and the decompressed size with it, while decompressing
            ("grpc.max_receive_message_length", limit_bytes),
            ("grpc.so_reuseport", 0),  # or a second collector would take half of the requests without a word
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        )
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(
                kind.grpc_service,
                {"Export": grpc.stream_unary_rpc_method_handler(_export(kind, live, intake, counters))},
            )
            for kind in KINDS
        )
    )
    try:
        if settings.security.cert_file:
            port = server.add_secure_port(str(settings.grpc), _credentials(live))
        else:
            port = server.add_insecure_port(str(settings.grpc))
    except RuntimeError as error:
        raise ConfigError(f"OTLP/gRPC cannot listen on {settings.grpc}: {error}", "--grpc changes it") from error
    await server.start()
    return server, port


def _credentials(live: Live) -> grpc.ServerCredentials:
    """Credentials that are asked for anew at each connection, so that a reload brings new certificates in."""
    used = _certificates(live.settings.security)
    read_for = live.settings

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """On a thread of gRPC's core. None goes on with the last ones."""
        nonlocal read_for
        if live.settings is read_for:
            return None
        read_for = live.settings
        try:
            return _certificates(read_for.security)
        except OSError as error:
            _log.error("gRPC goes on with the certificates it has: %s", error)
            return None

    return grpc.dynamic_ssl_server_credentials(
        used, fetch, require_client_authentication=bool(live.settings.security.client_ca_file)
    )


def _certificates(security: Security) -> grpc.ServerCertificateConfiguration:
    pair = (Path(security.key_file).read_bytes(), Path(security.cert_file).read_bytes())
    clients = Path(security.client_ca_file).read_bytes() if security.client_ca_file else None
    return grpc.ssl_server_certificate_configuration((pair,), clients)


def _export(
    kind: Kind, live: Live, intake: Intake, counters: Counters
) -> Callable[[AsyncIterator[bytes], grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    """The Export method of one signal. Its answer, an empty Export…ServiceResponse, is no bytes at all."""
    counted = (kind.items, TRANSPORT)
    large = asyncio.Semaphore(1)  # parsing one takes up to 0.2 s, in which others are to be answered

    async def export(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        tokens = live.settings.security.bearer_tokens
        if tokens and not is_authorized(_authorization(context), tokens):  # before anything is read of it
            counters.requests[TRANSPORT, "unauthorized"] += 1
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed (authorization: Bearer …)")
        # Read by hand: a unary handler leaves a call without a message open for ever (26 µs a request more).
        try:
            async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                request = await context.read()
                more = request is not grpc.aio.EOF and await context.read() is not grpc.aio.EOF
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message within {MESSAGE_TIMEOUT_S:g} s")
        if request is grpc.aio.EOF or more:
            counters.requests[TRANSPORT, "bad"] += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Export takes one message")
        items = 0
        try:
            if len(request) > LARGE_BYTES:
                async with large:
                    items = await asyncio.to_thread(count_items, kind, request)
            else:
                items = count_items(kind, request)
            if items:
                await intake.accept(kind.signal, request)
        except BadInputError as error:
            counters.requests[TRANSPORT, "bad"] += 1
            status = statuses.bad_request(error)
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                status.message,
                ((statuses.GRPC_DETAILS, status.SerializeToString()),),
            )
        except RetryableError as error:
            counters.requests[TRANSPORT, "refused"] += 1
            counters.refused[counted] += items
            status = statuses.unavailable(error)
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                status.message,
                (
                    (statuses.GRPC_DETAILS, status.SerializeToString()),
                    (statuses.GRPC_RETRY_INFO, statuses.retry_info(error).SerializeToString()),
                ),
            )
        counters.requests[TRANSPORT, "accepted"] += 1
        counters.accepted[counted] += items
        return b""

    return export


def _authorization(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else ""
    return ""


def is_authorized(authorization: str, tokens: tuple[str, ...]) -> bool:
    """Whether an Authorization header holds one of the tokens, compared in constant time."""
    scheme, _, token = authorization.partition(" ")
    given = token.strip().encode()
    matches = [hmac.compare_digest(given, known.encode()) for known in tokens]
    return scheme.lower() == "bearer" and any(matches)

"""A clickhouse-connect client whose connections can be cut: its own timeout starts anew with every byte."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakSet

import clickhouse_connect
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from hubscope.exporters.clickhouse import ClickHouseConfig

# Both say with a traceback what they then raise: a ClickHouse that is down took 60 lines a try, and one is enough.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)

Sockets = WeakSet[socket.socket]


def pool(config: ClickHouseConfig, sockets: Sockets) -> PoolManager:
    """The connections of one exporter; `sockets` holds those that are open. Made once: clickhouse-connect remembers
    every pool that it has seen for ever.
    """
    tls = config.tls
    made = PoolManager(
        maxsize=1,
        cert_reqs="CERT_NONE" if tls.insecure_skip_verify else "CERT_REQUIRED",
        ca_certs=tls.ca_file or None,
        cert_file=tls.cert_file or None,
        key_file=tls.key_file or None,
    )
    made.pool_classes_by_scheme = _noting(sockets)
    return made


def connect(config: ClickHouseConfig, connections: PoolManager) -> Any:
    """A client, which asks the server who it is at once. Raises clickhouse-connect's errors, and OSError for a file."""
    parts = urlsplit(config.url)
    encrypted = parts.scheme == "https"
    timeout_s = max(1, round(config.timeout_s))
    return clickhouse_connect.get_client(
        interface=parts.scheme,
        host=parts.hostname,
        port=parts.port or (8443 if encrypted else 8123),
        proxy_path=parts.path,
        username=config.username,
        password=config.password,
        pool_mgr=connections,
        connect_timeout=timeout_s,
        send_receive_timeout=timeout_s,
        query_retries=0,  # trying again is ours, with its pauses and its count
        autogenerate_session_id=False,
        show_clickhouse_errors="scrub",
        client_name="hubscope",
    )


def _noting(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    """The pools of both schemes, with connections that note their sockets."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}

"""ClickHouse's HTTP interface before the real engine: chdb parses, stores and answers; here is only the transport."""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from chdb import session

_TRANSPORT = {"query", "database", "wait_end_of_query", "query_id", "compress", "client_protocol_version"}
_INSERT = re.compile(r"\s*INSERT INTO (?P<into>.+) FORMAT (?P<format>\w+)\s*", re.DOTALL)


class ClickHouse:
    """A server over a session of its own. `before` is called with each statement and may raise or answer.

    `before(sql)` returns None to go on, an integer to answer with that HTTP status instead, or `after` to store the
    rows and then close the connection without an answer.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._session = session.Session(self._folder.name)
        self._lock = threading.Lock()
        self.before: Any = lambda sql: None
        self.inserts: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                params = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
                outer._answer(self, params, body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:  # connections that are cut are what is tested
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def encrypt(self, context: ssl.SSLContext) -> None:
        """From now on it talks TLS."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def query(self, sql: str) -> pa.Table:
        """The answer of the engine as Arrow."""
        with self._lock:
            content = self._session.query(sql, "Arrow").bytes()
        return pa.ipc.open_file(content).read_all() if content else pa.table({})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._session.close()
        self._folder.cleanup()

    def _answer(self, handler: Any, params: dict[str, str], body: bytes) -> None:
        sql = params.get("query") or body.decode()
        insert = _INSERT.fullmatch(sql)
        settings = {k: v for k, v in params.items() if k not in _TRANSPORT and not k.startswith("param_")}
        asked = self.before(sql)
        if isinstance(asked, int):
            self._reply(handler, asked, b"Code: 0. told to")
            return
        try:
            with self._lock:
                if insert:
                    self.inserts.append(settings.get("insert_deduplication_token", ""))
                    content = self._insert(insert, settings, body)
                else:
                    bound = {k.removeprefix("param_"): v for k, v in params.items() if k.startswith("param_")}
                    content = self._session.query(sql, "TabSeparated", params=bound).bytes()
        except Exception as error:  # noqa: BLE001 - whatever the engine says goes to the client, as the real server does
            found = re.search(r"Code: (\d+)", str(error))
            self._reply(handler, 500, str(error).encode(), {"X-ClickHouse-Exception-Code": found[1] if found else "0"})
            return
        if asked == "after":
            handler.connection.shutdown(socket.SHUT_RDWR)  # close() waits for the files made of it
            return
        self._reply(handler, 200, content)

    def _insert(self, insert: re.Match[str], settings: dict[str, str], rows: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows"
            path.write_bytes(rows)
            clause = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
            sql = f"INSERT INTO {insert['into']} FROM INFILE '{path}' SETTINGS {clause} FORMAT "
            self._session.query(sql + insert["format"])
        return b""

    @staticmethod
    def _reply(handler: Any, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in {"X-ClickHouse-Format": "Native", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

"""Forwarding over TLS, with certificates of CAs made here and real handshakes on both transports."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from hubscope.collector.log.wal import Record, Signal
from hubscope.errors import RetryableError
from hubscope.exporters.forward import ForwardConfig, ForwardExporter
from hubscope.exporters.tls import Tls
from hubscope.processors.batch import Batch

NO_SPANS = Record(Signal.TRACES, b"", 1)


class Papers:
    """A CA, the server's certificate and a client's, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.ca, self.folder = trustme.CA(), folder
        folder.mkdir()
        self.ca.cert_pem.write_to_path(folder / "ca.pem")
        for role in ("server", "client"):
            issued = self.ca.issue_cert(name, common_name=name)
            issued.cert_chain_pems[0].write_to_path(folder / f"{role}.pem")
            issued.private_key_pem.write_to_path(folder / f"{role}.key")

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("tls") / "good", "localhost")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("tls") / "strange", "elsewhere.example")


Server = tuple[str, list[bytes]]  # its URL, and what arrived


@pytest.fixture(params=["http", "grpc"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """`serve(papers, client_ca="")`: a server with that certificate; with a CA it wants clients' certificates of it."""
    closing: list[Callable[[], Any]] = []

    def http(papers: Papers, client_ca: str = "") -> Server:
        arrived: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arrived.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:  # a handshake that fails is what is tested
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(papers["server.pem"], papers["server.key"])
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        server = Quiet(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        closing.extend([server.shutdown, server.server_close])
        return f"https://localhost:{server.server_port}", arrived

    def over_grpc(papers: Papers, client_ca: str = "") -> Server:
        arrived: list[bytes] = []

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> Any:
                return grpc.unary_unary_rpc_method_handler(lambda body, context: arrived.append(body) or b"")

        pool = ThreadPoolExecutor(2)
        server = grpc.server(pool, handlers=(Handler(),))
        pair = (Path(papers["server.key"]).read_bytes(), Path(papers["server.pem"]).read_bytes())
        roots = Path(client_ca).read_bytes() if client_ca else None
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], roots, bool(client_ca)))
        server.start()
        closing.extend([lambda: server.stop(None).wait(), pool.shutdown])
        return f"grpcs://localhost:{port}", arrived

    yield {"http": http, "grpc": over_grpc}[request.param]
    for close in closing:
        close()


def outcome(url: str, tls: Tls, headers: tuple[tuple[str, str], ...] = ()) -> str:
    """`sent`, or the error's text."""
    exporter = ForwardExporter(ForwardConfig("there", url, headers, timeout_s=5, tls=tls))
    try:
        exporter.export(Batch(1, 1), [NO_SPANS])
    except RetryableError as error:
        return error.message
    finally:
        exporter.close()
    return "sent" if exporter.sent else exporter.last_refusal


def test_an_own_ca_is_trusted_and_only_it(serve: Callable[..., Server], papers: Papers) -> None:
    """With its CA's file a server is known; by the system's roots it is not, which is said and tried again."""
    url, arrived = serve(papers)
    assert outcome(url, Tls(ca_file=papers["ca.pem"])) == "sent"
    assert outcome(url, Tls()) != "sent"
    assert len(arrived) == 1


def test_the_systems_roots_are_the_default(
    serve: Callable[..., Server], papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine's own roots hold the CA, nothing needs to be configured."""
    url, _ = serve(papers)
    if url.startswith("grpcs"):  # its library reads the variable once a process
        code = (
            "import sys\n"
            "from hubscope.collector.log.wal import Record, Signal\n"
            "from hubscope.exporters.forward import ForwardConfig, ForwardExporter\n"
            "from hubscope.processors.batch import Batch\n"
            "exporter = ForwardExporter(ForwardConfig('there', sys.argv[1]))\n"
            "exporter.export(Batch(1, 1), [Record(Signal.TRACES, b'', 1)])\n"
            "print(exporter.sent)\n"
        )
        environ = {**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": papers["ca.pem"]}
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, env=environ)
        assert done.stdout.split() == ["1"], done.stderr
    else:
        monkeypatch.setenv("SSL_CERT_FILE", papers["ca.pem"])
        assert outcome(url, Tls()) == "sent"


def test_a_server_of_another_name_is_refused(serve: Callable[..., Server], strange: Papers) -> None:
    """A certificate that the CA signed for another host is no proof."""
    url, arrived = serve(strange)
    assert outcome(url, Tls(ca_file=strange["ca.pem"])) != "sent"
    assert arrived == []


def test_mutual_tls(serve: Callable[..., Server], papers: Papers, strange: Papers) -> None:
    """A server that wants a certificate gets ours; without one, or with a stranger's, nothing is sent."""
    url, arrived = serve(papers, papers["ca.pem"])
    ours = Tls(papers["ca.pem"], papers["client.pem"], papers["client.key"])
    assert outcome(url, ours) == "sent"
    assert outcome(url, Tls(papers["ca.pem"])) != "sent"
    assert outcome(url, Tls(papers["ca.pem"], strange["client.pem"], strange["client.key"])) != "sent"
    assert len(arrived) == 1


def test_verification_is_skipped_only_if_that_is_said(serve: Callable[..., Server], strange: Papers) -> None:
    """An unknown CA and another name: taken with `insecure_skip_verify`, and by nothing else."""
    url, arrived = serve(strange)
    assert outcome(url, Tls()) != "sent"
    assert outcome(url, Tls(insecure_skip_verify=True)) == "sent"
    assert len(arrived) == 1


def test_headers_are_in_no_error(serve: Callable[..., Server], papers: Papers) -> None:
    """What is told of a failure never holds a header's value."""
    url, _ = serve(papers)
    said = outcome(url, Tls(), (("authorization", "Bearer s3cr3t"),))
    assert said != "sent"
    assert "s3cr3t" not in said

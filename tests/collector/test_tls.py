"""TLS, mutual TLS and tokens on both transports, with certificates of a CA made here and real handshakes."""

from __future__ import annotations

import datetime
import json
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from hubscope.collector.configuration.settings import load
from hubscope.errors import ConfigError

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
HERE = ("localhost", "127.0.0.1")
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
TOMORROW = YESTERDAY + datetime.timedelta(days=2)
LONG_AGO = YESTERDAY - datetime.timedelta(days=30)


class Papers:
    """A CA, a server certificate of it in files, and what clients may show."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.ca = trustme.CA()
        self.cert, self.key, self.clients = folder / "server.pem", folder / "server.key", folder / "clients.pem"
        self.issue(*(names or HERE))
        self.ca.cert_pem.write_to_path(self.clients)
        self.client = self.ca.issue_cert("client@example.org")
        self.expired = self.ca.issue_cert("client@example.org", not_before=LONG_AGO, not_after=YESTERDAY)
        self.strange = trustme.CA().issue_cert("client@example.org")

    def issue(self, *names: str, **more: Any) -> None:
        server = self.ca.issue_cert(*names, **more)
        server.cert_chain_pems[0].write_to_path(self.cert)
        server.private_key_pem.write_to_path(self.key)

    def config(self, mutual: bool = True, **more: Any) -> dict[str, Any]:
        tls = {"cert_file": str(self.cert), "key_file": str(self.key)}
        return {"receivers": {"tls": tls | ({"client_ca_file": str(self.clients)} if mutual else {}), **more}}


def over_http(address: str, papers: Papers, shown: Any = None, token: str = "", host: str = "127.0.0.1") -> str:
    """What a POST over HTTPS comes to: a status code, or `refused` where no connection came about."""
    context = ssl.create_default_context()
    papers.ca.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    url = f"https://{host}:{address.rpartition(':')[2]}/v1/traces"
    headers = {**PROTOBUF, **({"Authorization": token} if token else {})}
    try:
        return str(httpx.post(url, content=b"", headers=headers, verify=context, timeout=20).status_code)
    except (httpx.HTTPError, ssl.SSLError):
        return "refused"


def over_grpc(address: str, papers: Papers, shown: Any = None, token: str = "", host: str = "127.0.0.1") -> str:
    """The same over gRPC: 200 for OK, 401 for UNAUTHENTICATED, `refused` where no connection came about."""
    credentials = grpc.ssl_channel_credentials(
        papers.ca.cert_pem.bytes(),
        shown.private_key_pem.bytes() if shown is not None else None,
        shown.cert_chain_pems[0].bytes() if shown is not None else None,
    )
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    with grpc.secure_channel(f"{host}:{address.rpartition(':')[2]}", credentials, options) as channel:
        metadata = (("authorization", token),) if token else ()
        future = channel.unary_unary(EXPORT).future(b"", timeout=20, metadata=metadata)
        error: Any = future.exception()
    if error is None:
        return "200"
    return {"UNAUTHENTICATED": "401", "UNAVAILABLE": "refused"}.get(error.code().name, error.code().name)


def on_both(collector: Any, papers: Papers, *shown: Any, **more: Any) -> tuple[str, str]:
    return (
        over_grpc(collector.addresses["grpc"], papers, *shown, **more),
        over_http(collector.addresses["http"], papers, *shown, **more),
    )


@pytest.fixture(scope="module")
def mutual(shared_collector: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Papers]:
    """A collector with mutual TLS and two tokens."""
    folder = tmp_path_factory.mktemp("mutual")
    papers = Papers(folder)
    (folder / "tokens").write_text("# of the build machines\ntoken-one\n\ntoken-two\n")
    config = papers.config(auth={"bearer_token_file": str(folder / "tokens")})
    (folder / "c.json").write_text(json.dumps(config))
    shared_collector.flags = ("--config", str(folder / "c.json"))
    assert shared_collector.stop() == 0
    shared_collector.start()
    return shared_collector, papers


@pytest.mark.parametrize("token", ["Bearer token-one", "bearer token-two", "Bearer  token-two"])
def test_a_known_client_with_a_token_gets_in(mutual: tuple[Any, Papers], token: str) -> None:
    """Its certificate by the right CA and any of the tokens: both transports take the request."""
    collector, papers = mutual
    assert on_both(collector, papers, papers.client, token=token) == ("200", "200")


@pytest.mark.parametrize(
    "token",
    ["", "Bearer", "Bearer token", "Bearer token-one2", "Basic token-one", "token-one", "Bearer t\u00f6"],
)
def test_a_wrong_token_is_401(mutual: tuple[Any, Papers], token: str) -> None:
    """Missing, empty, too short, too long, of another scheme, not ASCII: UNAUTHENTICATED and 401."""
    collector, papers = mutual
    if token.isascii():
        assert over_grpc(collector.addresses["grpc"], papers, papers.client, token) == "401"
        assert over_http(collector.addresses["http"], papers, papers.client, token) == "401"
    else:  # gRPC's client refuses to send it
        context = ssl.create_default_context()
        papers.ca.configure_trust(context)
        papers.client.configure_cert(context)
        url = f"https://127.0.0.1:{collector.addresses['http'].rpartition(':')[2]}/v1/traces"
        headers = {b"content-type": b"application/x-protobuf", b"authorization": token.encode()}
        assert httpx.post(url, headers=headers, verify=context).status_code == 401


@pytest.mark.parametrize("shown", ["nothing", "expired", "strange"])
def test_a_wrong_certificate_gets_no_connection(mutual: tuple[Any, Papers], shown: str) -> None:
    """No client certificate, an expired one, one by another CA: a right token does not help."""
    collector, papers = mutual
    certificate = None if shown == "nothing" else getattr(papers, shown)
    assert on_both(collector, papers, certificate, token="Bearer token-one") == ("refused", "refused")


def test_a_client_refuses_a_server_by_another_ca(mutual: tuple[Any, Papers], tmp_path: Path) -> None:
    """What answers is the certificate of the configuration: a client that trusts another CA goes away."""
    collector, papers = mutual
    other = Papers(tmp_path)
    assert on_both(collector, other, papers.client, token="Bearer token-one") == ("refused", "refused")


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_plain_text_to_a_tls_port_is_refused(mutual: tuple[Any, Papers], transport: str) -> None:
    """Bytes that are no handshake, and half a handshake, end that connection and nothing else."""
    collector, papers = mutual
    port = int(collector.addresses[transport].rpartition(":")[2])
    for data in (
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x00" * 64,
    ):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            try:
                answer = connection.recv(4096)
            except ConnectionError:
                answer = b""
            assert b"200" not in answer
    assert on_both(collector, papers, papers.client, token="Bearer token-one") == ("200", "200")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(mutual: tuple[Any, Papers]) -> None:
    """TLS 1.1 is not spoken."""
    collector, papers = mutual
    for transport in ("grpc", "http"):
        context = ssl.create_default_context()
        papers.ca.configure_trust(context)
        papers.client.configure_cert(context)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        port = int(collector.addresses[transport].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain, server_hostname="localhost")


def test_no_secret_is_told_anywhere(mutual: tuple[Any, Papers]) -> None:
    """Tokens are in no output, no process's arguments, no metric, no health answer, nor in what /proc lists of it."""
    collector, papers = mutual
    assert on_both(collector, papers, papers.client, token="Bearer wrong-token-xyz") == ("401", "401")
    url = f"http://{collector.addresses['telemetry']}"
    known = {"Authorization": "Bearer token-one"}
    told = [httpx.get(f"{url}/metrics", headers=known).text, httpx.get(f"{url}/healthz", headers=known).text]
    told += [httpx.get(f"{url}/metrics").text, httpx.get(f"{url}/token-one", headers=known).text, collector.output]
    assert collector.process is not None
    for pid in (collector.process.pid, collector.pid_of("front"), collector.pid_of("worker")):
        told.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode() if Path("/proc").is_dir() else "")
    for text in told:
        assert not any(secret in text for secret in ("token-one", "token-two", "wrong-token-xyz"))


def test_what_is_wrong_with_certificates_is_told_before_a_start(tmp_path: Path) -> None:
    """Another key, an expired or early certificate, files that are none, a key with a password, a CA that is none."""
    papers = Papers(tmp_path)

    def problems() -> str:
        (tmp_path / "c.json").write_text(json.dumps(papers.config()))
        try:
            load(config_path=str(tmp_path / "c.json"), default_lake="/lake")
        except ConfigError as error:
            return "\n".join(error.problems)
        return ""

    assert problems() == ""
    papers.ca.issue_cert("x").private_key_pem.write_to_path(papers.key)
    assert "receivers.tls.key_file" in problems()
    papers.issue(*HERE, not_before=LONG_AGO, not_after=YESTERDAY)
    assert f"receivers.tls.cert_file: {papers.cert}: certificate has expired" in problems()
    papers.issue(*HERE, not_before=TOMORROW)
    assert f"receivers.tls.cert_file: {papers.cert}: certificate is not yet valid" in problems()
    papers.issue(*HERE)
    key = serialization.load_pem_private_key(papers.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"password")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    papers.key.write_bytes(key.private_bytes(*form, locked))
    assert "unencrypted key" in problems()
    papers.issue(*HERE)
    papers.cert.write_text("no certificate")
    papers.clients.write_text("no certificate either")
    assert "receivers.tls.key_file" in problems()
    assert "receivers.tls.client_ca_file" in problems()


def test_tls_without_client_certificates(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """TLS alone: who trusts the CA gets in without a certificate, and a host name that is not in it is refused."""
    papers = Papers(tmp_path, "localhost")
    (tmp_path / "c.json").write_text(json.dumps(papers.config(mutual=False)))
    collector = new_collector("--config", str(tmp_path / "c.json"))
    collector.start()
    assert on_both(collector, papers, host="localhost") == ("200", "200")
    assert on_both(collector, papers, host="127.0.0.1") == ("refused", "refused")


def test_certificates_are_exchanged_by_a_reload(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """SIGHUP: new connections get the new certificate and the new client CA, the old client CA is out, no restart."""
    papers = Papers(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(papers.config()))
    collector = new_collector("--config", str(tmp_path / "c.json"))
    collector.start()
    front = collector.pid_of("front")
    assert on_both(collector, papers, papers.client) == ("200", "200")
    after = Papers(tmp_path)  # over the same files
    assert on_both(collector, papers, papers.client) == ("200", "200")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: "configuration reloaded" in collector.output, "it has reloaded")
    assert on_both(collector, after, after.client) == ("200", "200")
    assert on_both(collector, papers, papers.client) == ("refused", "refused")  # it does not trust the server now
    assert on_both(collector, after, papers.client) == ("refused", "refused")  # the server does not trust it
    papers.key.write_text("no key")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: "nothing changed" in collector.output, "a broken key is refused")
    assert on_both(collector, after, after.client) == ("200", "200")
    assert collector.pid_of("front") == front


def test_telemetry_that_others_reach_has_the_same_door(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """Beyond loopback, /metrics and /healthz want the client certificate too."""
    papers = Papers(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(papers.config()))
    collector = new_collector("--config", str(tmp_path / "c.json"))
    collector.addresses = {"grpc": "0.0.0.0:0", "http": "0.0.0.0:0", "telemetry": "0.0.0.0:0"}
    collector.start(wait=False)
    collector.wait_for(lambda: "OTLP/gRPC on" in collector.output, "it listens", 40)
    addresses = json.loads((collector.state / "collector.json").read_text())["addresses"]
    url = f"https://127.0.0.1:{addresses['telemetry'].rpartition(':')[2]}"
    context = ssl.create_default_context()
    papers.ca.configure_trust(context)
    with pytest.raises((httpx.HTTPError, ssl.SSLError)):
        httpx.get(f"{url}/healthz", verify=context)
    papers.client.configure_cert(context)
    assert httpx.get(f"{url}/healthz", verify=context).json()["lake"] == str(collector.lake)
    assert "otelcol_process_uptime" in httpx.get(f"{url}/metrics", verify=context).text

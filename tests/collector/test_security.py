"""Who may listen, what a request can reach, who may read the files, which pages of a browser may send."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector import private
from hubscope.collector.configuration.settings import load
from hubscope.console import lake_checks
from hubscope.console.checks import OK, WARN
from hubscope.console.main import main
from hubscope.errors import ConfigError

PROTOBUF = {"Content-Type": "application/x-protobuf"}

owner_alone = pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists instead of modes")


def one_span(name: str = "x") -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name)
    return request.SerializeToString()


@pytest.mark.parametrize("flag", ["--grpc", "--http", "--telemetry"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org"])
def test_an_open_door_must_be_meant(flag: str, host: str) -> None:
    """Any address but loopback needs client certificates, tokens, or --insecure: the error names all three."""
    with pytest.raises(ConfigError) as caught:
        load({flag: f"{host}:5000"}, default_lake="/lake")
    (problem,) = caught.value.problems
    assert f"({flag}): {host}:5000" in problem
    assert all(way in problem for way in ("client_ca_file", "bearer_token_file", "--insecure"))
    load({flag: f"{host}:5000", "--insecure": True}, default_lake="/lake")
    for loopback in ("127.0.0.1:5000", "127.8.8.8:5000", "[::1]:5000", "localhost:5000", ":5000"):
        load({flag: loopback}, default_lake="/lake")


def test_the_lake_belongs_to_its_owner(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """With the laxest umask: everything that a collector makes has mode 0600, and 0700 if it is a folder."""
    before = os.umask(0)
    try:
        collector = new_collector("--forward", "http://127.0.0.1:9/v1")
        collector.start()
        url = f"http://{collector.addresses['http']}/v1/traces"
        assert httpx.post(url, content=one_span("kept"), headers=PROTOBUF).status_code == 200
        collector.wait_for(lambda: "kept" in collector.span_names(), "the span is in the lake")
        looked_at = {path.relative_to(collector.lake).as_posix() for path in collector.lake.rglob("*")}
        lax = [
            (oct(path.lstat().st_mode), str(path))
            for path in (collector.lake, *collector.lake.rglob("*"))
            if path.exists() and path.lstat().st_mode & private.OTHERS
        ]
        assert lax == []
        assert list(private.open_to_others(collector.lake)) == []
    finally:
        os.umask(before)
    for part in (
        ".state/settings.json",
        ".state/collector.json",
        ".state/wal",
        ".state/cursors",
        "otel_traces/_delta_log",
    ):
        assert part in looked_at, "what was to be looked at has another name"
    assert any(name.startswith("otel_traces/_delta_log/0") for name in looked_at)
    assert any(name.endswith(".parquet") for name in looked_at)


@owner_alone
def test_an_import_is_private_too(tmp_path: Path) -> None:
    """`hubscope import` makes no file that others can read."""
    source = tmp_path / "traces.json"
    source.write_text(
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",'
        '"spanId":"eee19b7ec3c1b174","name":"x"}]}]}]}'
    )
    before = os.umask(0)
    try:
        done = CliRunner().invoke(main, ["import", str(source), "--lake", str(tmp_path / "lake")])
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    assert list(private.open_to_others(tmp_path / "lake")) == []
    assert list((tmp_path / "lake").rglob("*.parquet"))


@owner_alone
def test_doctor_tells_who_else_can_read(tmp_path: Path) -> None:
    """A lake with laxer rights is a warning that names a file and the command; a private folder hides what is below."""
    lake = tmp_path / "lake"
    (lake / "otel_traces").mkdir(parents=True)
    (lake / "otel_traces" / "part.parquet").touch()
    for path, mode in ((lake, 0o755), (lake / "otel_traces", 0o750), (lake / "otel_traces" / "part.parquet", 0o640)):
        path.chmod(mode)
    (check,) = lake_checks.privacy(str(lake))
    assert (check.what, check.state) == ("privacy", WARN)
    assert str(lake) in check.detail
    assert check.remedy == f"chmod -R go-rwx {lake}"
    (lake / "otel_traces").chmod(0o700)
    (check,) = lake_checks.privacy(str(lake))
    assert check.detail == f"others on this machine can get at {lake}"
    lake.chmod(0o700)
    (check,) = lake_checks.privacy(str(lake))
    assert check.state == OK


@owner_alone
def test_a_folder_is_private_with_its_parents(tmp_path: Path) -> None:
    """Parents that are made on the way are private too, those that stood there stay as they are."""
    tmp_path.chmod(0o755)
    private.make_folder(tmp_path / "a" / "b")
    assert [p.stat().st_mode & 0o777 for p in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [0o755, 0o700, 0o700]
    private.make_folder(tmp_path / "a" / "b")


@pytest.fixture(scope="module")
def secret(shared_collector: Any) -> Iterator[Path]:
    """A file beside the lake whose content no answer may hold."""
    found = shared_collector.lake.parent / "secret.txt"
    found.write_text("do-not-tell-this")
    yield found
    found.unlink()


def raw(address: str, request: bytes) -> bytes:
    """The whole answer to bytes that no client would send."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionError:
            pass
        return answer


TARGETS = (
    "/../../secret.txt", "/v1/../../secret.txt", "/v1/traces/../../../secret.txt", "/%2e%2e/%2e%2e/secret.txt",
    "/..%2f..%2fsecret.txt", "/%252e%252e%252fsecret.txt", "/..%c0%af..%c0%afsecret.txt", "/..\\..\\secret.txt",
    "/secret.txt%00", "/v1/traces%00.json", "/v1/traces;/../../secret.txt", "//etc/passwd", "/etc/passwd",
    "/%2fetc/passwd", "/proc/self/environ", "file:///etc/passwd", "http://127.0.0.1/etc/passwd",
    "http://example.org/v1/traces/../../etc/passwd", "/.state/settings.json", "/" + "../" * 200 + "etc/passwd",
    "/v1/traces?file=/etc/passwd", "*", "/" + "a" * 60_000,
)  # fmt: skip


@pytest.mark.parametrize("server", ["http", "telemetry"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t[:40])
def test_no_path_of_a_request_reaches_the_file_system(
    shared_collector: Any, secret: Path, server: str, target: str
) -> None:
    """Traversals, encoded or not, null bytes, absolute forms: no content of a file, no new file."""
    before = sorted(path for path in shared_collector.lake.parent.iterdir())
    for method in ("GET", "POST", "PUT", "DELETE"):
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        answer = raw(shared_collector.addresses[server], f"{head}Connection: close\r\n\r\n{{}}".encode("latin-1"))
        assert secret.read_bytes() not in answer
        assert b"root:" not in answer
        assert b"bearer_tokens" not in answer
        code = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 400
        is_export = server == "http" and method == "POST" and target.startswith("/v1/traces?")
        assert code == 200 if is_export else code in (400, 404, 405, 414, 431), (method, code)
    assert sorted(path for path in shared_collector.lake.parent.iterdir()) == before
    assert shared_collector.health()["ready"]


def test_pages_of_named_origins_may_send(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """A preflight and a POST from a named origin carry its name; from any other none, and none where none is named."""
    (tmp_path / "c.yaml").write_text(
        "receivers: {cors: {allowed_origins: ['http://localhost:3000', 'https://ui.example']}}"
    )
    named, none = new_collector("--config", str(tmp_path / "c.yaml")), new_collector()
    named.start()
    none.start()
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

    def allowed(collector: Any, origin: str) -> tuple[int, str | None, str | None]:
        url = f"http://{collector.addresses['http']}/v1/traces"
        before = httpx.options(url, headers={"Origin": origin, **asks})
        sent = httpx.post(url, content=b"{}", headers={"Origin": origin, "Content-Type": "application/json"})
        name = "access-control-allow-origin"
        return before.status_code, before.headers.get(name), sent.headers.get(name)

    for origin in ("http://localhost:3000", "https://ui.example"):
        assert allowed(named, origin) == (204, origin, origin)
    for origin in ("http://localhost:3001", "http://ui.example", "https://ui.example.evil.org", "null", "*"):
        assert allowed(named, origin) == (204, None, None)
        assert allowed(none, origin) == (405, None, None)
    url = f"http://{named.addresses['http']}/v1/traces"
    before = httpx.options(url, headers={"Origin": "https://ui.example", **asks})
    assert "content-type" in before.headers["access-control-allow-headers"]
    assert "POST" in before.headers["access-control-allow-methods"]
    assert before.headers["vary"] == "origin"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        sent = httpx.post(url, content=one_span(), headers={"Origin": "https://evil.example", "Content-Type": kind})
        assert sent.status_code == 415  # what a page may send without asking first is never taken


def test_origins_are_checked_when_they_are_named(tmp_path: Path) -> None:
    """A path, a missing scheme, a comma: each is an error with what an origin looks like."""
    for wrong in ("http://a/path", "localhost:3000", "http://a, http://b", "http://a/"):
        (tmp_path / "c.yaml").write_text(f"receivers: {{cors: {{allowed_origins: ['{wrong}']}}}}")
        with pytest.raises(ConfigError, match=r"receivers\.cors\.allowed_origins: must be origins such as"):
            load(config_path=str(tmp_path / "c.yaml"), default_lake="/lake")

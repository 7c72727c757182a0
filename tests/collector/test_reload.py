"""SIGHUP: new settings count while everything runs; wrong ones change nothing; nothing acknowledged is lost."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector import reload
from hubscope.collector.configuration.addresses import Address
from hubscope.collector.configuration.settings import CollectorSettings, Limits, Logs, Security
from hubscope.exporters.forward import ForwardConfig

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def one_span(name: str) -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name=name)
    span.trace_id, span.span_id = name.encode().ljust(16, b".")[:16], name.encode()[-8:].rjust(8, b".")
    return request.SerializeToString()


def test_a_plan_names_what_only_a_restart_changes() -> None:
    """Addresses, folders, gRPC's size limit and TLS itself wait; the rest counts at once."""
    current = CollectorSettings(lake="/lake", state_dir="/state")
    same = reload.plan(current, current, rules_changed=False)
    assert (same.settings, same.renew_worker, same.waiting) == (current, False, ())
    tokens = replace(current, security=Security(bearer_tokens=("t",)))
    assert reload.plan(current, tokens, rules_changed=False) == (tokens, False, ())
    forward = replace(current, forward=(ForwardConfig("a", "http://a:4317"),))
    assert reload.plan(current, forward, rules_changed=False) == (forward, True, ())
    assert reload.plan(current, replace(current, logs=Logs(level="debug")), rules_changed=False).renew_worker
    assert reload.plan(current, current, rules_changed=True).renew_worker
    moved = replace(
        current,
        lake="/other",
        grpc=Address("127.0.0.1", 1),
        limits=Limits(request_size_bytes=1, memory_bytes=7),
        security=Security(cert_file="c", key_file="k", bearer_tokens=("t",)),
    )
    plan = reload.plan(current, moved, rules_changed=False)
    assert plan.waiting == ("lake", "receivers.grpc.endpoint", "receivers.max_request_size", "receivers.tls.cert_file")
    assert (plan.settings.lake, plan.settings.grpc) == (current.lake, current.grpc)
    assert plan.settings.limits == Limits(memory_bytes=7)
    assert plan.settings.security == Security(bearer_tokens=("t",))


class Load:
    """Sends one span a request on both transports, without a pause. `acknowledged` are their names."""

    def __init__(self, collector: Any, token: Callable[[], str]) -> None:
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self._collector, self._token = collector, token
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._grpc), threading.Thread(target=self._http)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _grpc(self) -> None:
        with grpc.insecure_channel(self._collector.addresses["grpc"]) as channel:
            export = channel.unary_unary(EXPORT)
            number = 0
            while not self._stop.is_set():
                number += 1
                try:
                    export(one_span(f"g{number}"), timeout=20, metadata=(("authorization", f"Bearer {self._token()}"),))
                    self.acknowledged.append(f"g{number}")
                except grpc.RpcError as error:
                    self.failures.append(f"gRPC {error.code()} {error.details()}")

    def _http(self) -> None:
        url = f"http://{self._collector.addresses['http']}/v1/traces"
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                headers = {**PROTOBUF, "Authorization": f"Bearer {self._token()}"}
                answer = httpx.post(
                    url, content=one_span(f"h{number}"), headers=headers, timeout=20
                )  # a connection each
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200:
                self.acknowledged.append(f"h{number}")
            else:
                self.failures.append(f"HTTP {answer.status_code}")


def test_reloads_under_load_lose_nothing_and_refuse_nobody(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """Four SIGHUPs that renew the worker while two senders never stop: no request fails, each span is there once."""
    path = tmp_path / "c.json"
    content: dict[str, Any] = {"receivers": {"auth": {"bearer_tokens": ["first"]}}, "logs": {"level": "info"}}
    path.write_text(json.dumps(content))
    collector = new_collector("--config", str(path))
    collector.start()
    collector.wait_for(lambda: collector.pid_of("worker"), "a worker")
    load = Load(collector, lambda: "first")
    front = collector.pid_of("front")
    for round_number in range(4):
        worker = collector.pid_of("worker")
        content["logs"]["level"] = ("debug", "info")[round_number % 2]
        path.write_text(json.dumps(content))
        collector.process.send_signal(signal.SIGHUP)
        collector.wait_for(
            lambda worker=worker: collector.pid_of("worker") not in (0, worker), "a worker with the new settings", 60
        )
        seen = len(load.acknowledged)
        collector.wait_for(lambda seen=seen: len(load.acknowledged) > seen + 20, "the load goes on")
    load.stop()
    assert load.failures == []
    assert collector.pid_of("front") == front
    assert collector.stop() == 0
    assert Counter(collector.span_names()) == Counter(load.acknowledged)
    assert "the worker ended" not in collector.output  # a renewal is no failure


def test_tokens_are_exchanged_without_a_gap(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """Old, both, new: who has the old token works until the end of both, who has the new one from their start on."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# of the build machines\nold-token\n")
    (tmp_path / "c.yaml").write_text(f"receivers: {{auth: {{bearer_token_file: {tokens}}}}}\n")
    collector = new_collector("--config", str(tmp_path / "c.yaml"))
    collector.start()

    def codes(token: str) -> set[Any]:
        headers = {**PROTOBUF, "Authorization": f"Bearer {token}"}
        found: set[Any] = {
            httpx.post(f"http://{collector.addresses['http']}/v1/traces", content=b"", headers=headers).status_code
        }
        with grpc.insecure_channel(collector.addresses["grpc"]) as channel:
            try:
                channel.unary_unary(EXPORT)(b"", timeout=20, metadata=(("authorization", f"Bearer {token}"),))
                found.add("OK")
            except grpc.RpcError as error:
                found.add(error.code().name)
        return found

    good, bad = {200, "OK"}, {401, "UNAUTHENTICATED"}
    assert (codes("old-token"), codes("new-token")) == (good, bad)
    tokens.write_text("new-token\nold-token\n")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: codes("new-token") == good, "the new token counts")
    assert codes("old-token") == good
    tokens.write_text("new-token\n")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: codes("old-token") == bad, "the old token is out")
    assert codes("new-token") == good
    assert "old-token" not in collector.output


def test_a_wrong_file_changes_nothing_and_says_why(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """A broken file, then a good one with a change that needs a restart: it goes on, and tells both."""
    path = tmp_path / "c.yaml"
    path.write_text("log: {max_size: 1 GiB}\n")
    collector = new_collector("--config", str(path))
    collector.start()
    handed_over = (collector.state / "settings.json").read_text()
    worker = collector.wait_for(lambda: collector.pid_of("worker"), "a worker")
    path.write_text("log: {max_size: lots}\nreceivers: {grcp: {endpoint: ':1'}}\n")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: "nothing changed" in collector.output, "the refusal is told")
    assert "log.max_size: must be a size such as 64 MiB" in collector.output
    assert "did you mean receivers.grpc.endpoint?" in collector.output
    assert (collector.state / "settings.json").read_text() == handed_over
    assert collector.pid_of("worker") == worker
    assert collector.health()["ready"]
    path.write_text(f"log: {{max_size: 1 GiB}}\nstate: {tmp_path / 'elsewhere'}\n")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: "only a restart changes state" in collector.output, "what waits is told")
    assert not (tmp_path / "elsewhere").exists()
    assert collector.stop() == 0


def test_a_new_destination_gets_what_comes_from_then_on(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """A forward that a reload names is served by the new worker."""
    path = tmp_path / "c.json"
    path.write_text("{}")
    collector, other = new_collector("--config", str(path)), new_collector()
    collector.start()
    other.start()
    path.write_text(json.dumps({"exporters": {"forward": [f"grpc://{other.addresses['grpc']}"]}}))
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: len(collector.health().get("exporters", {})) == 2, "the forward is there", 40)
    httpx.post(f"http://{collector.addresses['http']}/v1/traces", content=one_span("passed-on"), headers=PROTOBUF)
    other.wait_for(lambda: "passed-on" in other.span_names(), "the span in the other lake")


def test_a_limit_changes_while_requests_come(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """A limit that the log has passed refuses from the reload on, and a larger one takes again: the same front."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"log": {"max_size": "1 GiB"}}))
    collector = new_collector("--config", str(path))
    collector.start()
    front = collector.pid_of("front")
    for size, ready in (("1 B", False), ("1 GiB", True)):
        httpx.post(f"http://{collector.addresses['http']}/v1/traces", content=one_span("x"), headers=PROTOBUF)
        path.write_text(json.dumps({"log": {"max_size": size}, "receivers": {"max_waiting_size": "1 GiB"}}))
        collector.process.send_signal(signal.SIGHUP)

        def answers(ready: bool = ready) -> bool:
            url = f"http://{collector.addresses['http']}/v1/traces"
            return (httpx.post(url, content=one_span("y"), headers=PROTOBUF).status_code == 200) is ready

        collector.wait_for(answers, f"with {size}: taken is {ready}")
    assert collector.pid_of("front") == front
    with socket.create_connection(tuple(collector.addresses["grpc"].rsplit(":", 1)), 5):
        pass

"""Duty 9: what the receivers did is on /metrics under the stock Collector's names; /healthz says whether they can."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.collector.duties.wire import JSON, SIGNALS, Connection, Front, Signal, example, marker, raw

ITEMS = {"traces": "spans", "metrics": "metric_points", "logs": "log_records"}


def metric(front: Front, name: str) -> dict[str, float]:
    """Transport -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{front.telemetry_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {sample.labels["transport"]: sample.value for sample in families[name].samples if sample.value}


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))
def test_accepted_items_are_counted_by_transport(new_front: Callable[..., Front], signal: Signal) -> None:
    """otelcol_receiver_accepted_… counts the items of each signal by transport."""
    front = new_front()
    front.export(example(signal, items=3).SerializeToString(), signal)
    front.post(example(signal, items=2).SerializeToString(), path=signal.path)
    assert metric(front, f"otelcol_receiver_accepted_{ITEMS[signal.name]}") == {"grpc": 3, "http": 2}


def test_bad_requests_are_counted(new_front: Callable[..., Front]) -> None:
    """Requests that were refused for good are counted by transport, also those that were no HTTP at all."""
    front = new_front()
    front.refused(b"\xff")
    front.post(b"[]", JSON)
    front.exchange(b"GARBAGE\r\n\r\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{front.telemetry_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    samples = [
        (sample.labels.get("transport"), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("outcome") == "bad"
    ]
    assert sorted(samples) == [("grpc", 1.0), ("http", 2.0)]


def test_health_says_ready(new_front: Callable[..., Front]) -> None:
    """/healthz answers while requests are taken."""
    front = new_front()
    with urllib.request.urlopen(f"http://127.0.0.1:{front.telemetry_port}/healthz", timeout=20) as answer:
        assert answer.status == 200


def test_what_the_collector_before_said_is_not_said_of_this_one(new_front: Callable[..., Front]) -> None:
    """Until its own worker speaks, an error that stands in worker.json is told as the former one's."""
    front = new_front()
    said = Path(front.settings.state_dir) / "worker.json"
    error = "s3://lake has not answered for more than 10 s"
    said.write_text(json.dumps({"exporters": {"lake": {"last_error": error}}}))

    def reason() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{front.telemetry_port}/healthz", timeout=20) as answer:
            return str(json.load(answer)["reason"])

    assert reason() == error
    os.utime(said, (1e9, 1e9))
    assert reason().startswith("the worker is starting")
    assert reason().endswith(f"the collector before this one could not write: {error}")


def test_telemetry_answers_while_a_sender_is_slow(new_front: Callable[..., Front]) -> None:
    """A sender in the middle of its body does not hold /metrics up."""
    front = new_front()
    with Connection(front.http_port) as connection:
        connection.send(raw("/v1/traces", b"", JSON, "Content-Length: 10", length=False) + b"{")
        front.export(example(name=marker()).SerializeToString())
        assert metric(front, "otelcol_receiver_accepted_spans") == {"grpc": 1}

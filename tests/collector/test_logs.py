"""What the processes say: JSON lines that a machine reads, repeats counted instead of repeated, no secret anywhere."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.collector import logs
from hubscope.collector.configuration.settings import CollectorSettings, Security
from hubscope.exporters.clickhouse import ClickHouseConfig
from hubscope.exporters.forward import ForwardConfig

SECRETIVE = CollectorSettings(
    lake="/lake",
    state_dir="/state",
    security=Security(bearer_tokens=("tok-en-1234",)),
    forward=(ForwardConfig("far", "https://far.example", (("authorization", "Bearer outgoing-5678"),)),),
    clickhouse=(ClickHouseConfig("rows", "http://ch.example", password="pass-word-91"),),
)


@pytest.fixture
def logger() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger whose lines are JSON, and what it wrote."""
    found = logging.getLogger("hubscope.test-logs")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonLines("worker", logs.secrets_of(SECRETIVE)))
    handler.addFilter(logs.Repeats())
    found.handlers[:], found.propagate = [handler], False
    found.setLevel(logging.DEBUG)
    yield found, written
    found.handlers.clear()


@given(st.text(max_size=200))
def test_any_message_is_one_line_of_json(text: str) -> None:
    """Line breaks, control characters and lone surrogates stay inside one parsable line that gives them back."""
    record = logging.LogRecord("hubscope.x", logging.WARNING, "x.py", 1, "%s", (text,), None)
    line = logs.JsonLines("front", ()).format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert (found["event"], found["level"], found["process"]) == (text, "warning", "front")


def test_a_text_line_holds_nothing_that_a_terminal_obeys() -> None:
    """Escapes, bells and zeros are written out, and a line break begins no line that looks like one of ours."""
    record = logging.LogRecord(
        "hubscope.x", logging.WARNING, "x.py", 1, "%s", ("a\x1b[2J\x07\0\x9b\rb\nfront: ok",), None
    )
    line = logs.TextLines("worker", ()).format(record)
    assert line.endswith("worker: a\\x1b[2J\\x07\\x00\\x9b\\rb\n  front: ok")


def test_fields_stand_beside_the_event(logger: tuple[logging.Logger, io.StringIO]) -> None:
    """Extra fields are keys of their own and cannot replace the line's; a traceback is in the line."""
    log, written = logger
    try:
        raise ValueError("tok-en-1234 is wrong")
    except ValueError:
        log.exception("failed", extra={"fields": {"segment": 7, "level": "mine"}})
    line = json.loads(written.getvalue())
    assert (line["segment"], line["level"], line["event"]) == (7, "error", "failed")
    assert "ValueError" in line["exception"]
    assert "tok-en-1234" not in written.getvalue()


def test_secrets_are_struck_out(logger: tuple[logging.Logger, io.StringIO]) -> None:
    """Tokens that let in and headers that are sent appear in no line, wherever a message has them from."""
    log, written = logger
    log.warning("got %s from %s", "Bearer tok-en-1234", {"authorization": "Bearer outgoing-5678"})
    assert "tok-en-1234" not in written.getvalue()
    assert "outgoing-5678" not in written.getvalue()
    log.warning("ClickHouse said: %s", "Authentication failed for default with pass-word-91")
    assert "pass-word-91" not in written.getvalue()
    assert logs.STRUCK_OUT in written.getvalue()


def test_repeats_are_counted(logger: tuple[logging.Logger, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand equal messages five are written, others still are; the next minute says how many were not."""
    log, written = logger
    now_s = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now_s)
    for number in range(1000):
        log.warning("destination %d is down", number)
    log.warning("something else")
    assert len(written.getvalue().splitlines()) == logs.BURST + 1
    now_s += logs.WINDOW_S
    log.warning("destination %d is down", 1)
    assert f"{1000 - logs.BURST} more of these were left out" in written.getvalue().splitlines()[-1]


def test_all_three_processes_write_json(new_collector: Callable[..., Any], tmp_path: Path) -> None:
    """With --log-format json every line that a collector ever writes parses, and names its process, time and level."""
    (tmp_path / "c.yaml").write_text("receivers: {auth: {bearer_tokens: [tok-en-1234]}}\n")
    collector = new_collector("--log-format", "json", "--config", str(tmp_path / "c.yaml"))
    collector.start()
    os.kill(collector.wait_for(lambda: collector.pid_of("worker"), "a worker"), signal.SIGKILL)
    collector.wait_for(lambda: "was ended by SIGKILL" in collector.output, "the restart is told")
    for token in ("tok-en-1234", "wrong"):
        httpx.post(
            f"http://{collector.addresses['http']}/v1/traces",
            content=b"\xff",
            headers={"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {token}"},
        )
    (tmp_path / "c.yaml").write_text("receivers: {auth: {bearer_tokens: [tok-en-1234]}, tsl: 1}\n")
    collector.process.send_signal(signal.SIGHUP)
    collector.wait_for(lambda: "nothing changed" in collector.output, "the refused reload is told")
    assert collector.stop() == 0
    lines = [json.loads(line) for line in collector.output.splitlines()]
    assert {"supervisor"} <= {line["process"] for line in lines} <= {"supervisor", "front", "worker"}
    assert all({"time", "level", "event", "pid"} <= line.keys() for line in lines)
    assert "tok-en-1234" not in collector.output


def test_a_level_leaves_the_rest_out(new_collector: Callable[..., Any]) -> None:
    """With --log-level error a good start and stop say nothing at all."""
    collector = new_collector("--log-level", "error")
    collector.start()
    assert collector.stop() == 0
    assert collector.output == ""

"""Duty 7: values inside values, to the stated depth and beyond it: kept whole, or refused with a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from deltalake import DeltaTable
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.collector.conftest import Collector
from tests.collector.duties.wire import JSON, SIGNALS, Signal, Target, marker
from tests.collector.fuzz.mutations import field

# protobuf's parsers take 100 messages inside each other. The request, its resource, scope and span or record are four
# of them, an attribute and its value two; each array or key-value list takes two, a pair of the latter one more.
DEEPEST = {("traces", "array"): 47, ("logs", "array"): 47, ("body", "array"): 48, ("traces", "kvlist"): 31}
PLACES = [*DEEPEST]


def nested(place: str, kind: str, levels: int, name: str) -> tuple[Signal, bytes, bytes]:
    """A request with `levels` lists inside each other: its signal, as protobuf and as JSON."""
    value = AnyValue(string_value=name).SerializeToString()
    text = f'{{"stringValue":"{name}"}}'
    for _ in range(levels):
        member = value if kind == "array" else field(1, b"k") + field(2, value)
        value = field(5 if kind == "array" else 6, field(1, member))
        member_text = text if kind == "array" else f'{{"key":"k","value":{text}}}'
        text = f'{{"{kind}Value":{{"values":[{member_text}]}}}}'
    attribute = field(1, b"deep") + field(2, value)
    if place == "traces":
        body = field(1, field(2, field(2, field(9, attribute))))
        span = f'{{"attributes":[{{"key":"deep","value":{text}}}]}}'
        return SIGNALS["traces"], body, f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}'.encode()
    body = field(1, field(2, field(2, field(5, value) if place == "body" else field(6, attribute))))
    record = f'{{"body":{text}}}' if place == "body" else f'{{"attributes":[{{"key":"deep","value":{text}}}]}}'
    return SIGNALS["logs"], body, f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}'.encode()


@pytest.mark.parametrize(("place", "kind"), PLACES)
@pytest.mark.parametrize("more", [1, 2, 10, 52, 100, 1000, 5000])
def test_deeper_values_are_refused(target: Target, place: str, kind: str, more: int) -> None:
    """Beyond the stated depth protobuf over both transports is refused as bad data that says why."""
    signal, body, _ = nested(place, kind, DEEPEST[place, kind] + more, marker())
    if len(body) > 900_000:
        pytest.skip("beyond the size limit of the server under test")
    error = target.refused(body, signal)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    answer = target.post(body, path=signal.path)
    assert answer.code == 400
    assert "100 levels" in str(answer.status)


@pytest.mark.parametrize(("place", "kind"), PLACES)
@pytest.mark.parametrize("more", [1, 2, 10, 100, 1000, 5000])
def test_deeper_json_is_refused(target: Target, place: str, kind: str, more: int) -> None:
    """Beyond the same depth JSON is refused as bad data that says why, however deep it is."""
    signal, _, text = nested(place, kind, DEEPEST[place, kind] + more, marker())
    answer = target.post(text[: 1 << 20], JSON, path=signal.path)
    assert answer.code == 400
    assert "deep" in str(answer.status) or len(text) > 1 << 20


@pytest.mark.parametrize(("place", "kind"), PLACES)
def test_the_stated_depth_is_taken(target: Target, place: str, kind: str) -> None:
    """The deepest value that is stated is taken over gRPC, HTTP/protobuf and HTTP/JSON alike."""
    names = [marker() for _ in range(3)]
    forms = [nested(place, kind, DEEPEST[place, kind], name) for name in names]
    signal = forms[0][0]
    target.export(forms[0][1], signal)
    assert target.post(forms[1][1], path=signal.path).code == 200
    assert target.post(forms[2][2], JSON, path=signal.path).code == 200
    assert all(target.kept(name, signal) for name in names)


def test_the_deepest_values_are_whole_in_the_lake(tmp_path: Path) -> None:
    """The deepest values stand in the lake as JSON of that depth, and nothing became a dead letter."""
    (tmp_path / "c").mkdir()
    collector = Collector(tmp_path / "c" / "lake")
    collector.start()
    try:
        target = Target(*(int(collector.addresses[name].rsplit(":", 1)[1]) for name in ("grpc", "http")))
        for (place, kind), levels in DEEPEST.items():
            signal, body, text = nested(place, kind, levels, "end")
            target.export(body, signal)
            assert target.post(text, JSON, path=signal.path).code == 200
        assert collector.stop() == 0, collector.output
    finally:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all()
    spans = DeltaTable(str(collector.lake / "otel_traces")).to_pyarrow_table().to_pylist()
    logs = DeltaTable(str(collector.lake / "otel_logs")).to_pyarrow_table().to_pylist()
    texts = [dict(row["SpanAttributes"])["deep"] for row in spans]
    texts += [row["Body"] if row["Body"] is not None else dict(row["LogAttributes"])["deep"] for row in logs]
    assert sorted(map(_depth, texts)) == sorted([*DEEPEST.values()] * 2)
    assert not (collector.state / "dead-letter").exists()


def _depth(text: str) -> int:
    value: Any = json.loads(text)
    depth = 0
    while value != "end":
        (value,) = value.values() if isinstance(value, dict) else value
        depth += 1
    return depth

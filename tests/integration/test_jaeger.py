"""A real Jaeger 2 receives what the collector forwards: every span, with every attribute, compared with the lake."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

# Jaeger's cold build took 5 min on two busy cores; afterwards the binary is kept.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
ARRIVAL_DEADLINE_S = 30.0
LARGE_TRACE = 10_000
Row = dict[str, Any]

CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
extensions:
  jaeger_storage:
    backends:
      memory_store: {{memory: {{max_traces: 100000}}}}
  jaeger_query:
    storage: {{traces: memory_store}}
    enable_tracing: false  # else it sends spans of our questions to localhost:4317, and takes 10 s to stop
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory_store}}
"""


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger: where it takes OTLP, and where it is asked."""

    grpc: str
    http: str
    query: str

    def ask(self, path: str, **parameters: str | int) -> Any:
        """The JSON answer; None where Jaeger says there is no such trace."""
        url = f"{self.query}{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(f"{url}: {error.code} {error.read()[:500]!r}") from error

    def trace(self, trace_id: str) -> list[Row]:
        """The spans of one trace, as it was received: without Jaeger's own repairs."""
        return _spans(self.ask(f"/api/v3/traces/{trace_id}", raw_traces="true"))

    def search(self, service: str, since: datetime) -> list[Row]:
        """The spans of all traces of a service, as they were received."""
        window = {
            "query.start_time_min": since.isoformat().replace("+00:00", "Z"),
            "query.start_time_max": (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z"),
        }
        parameters: dict[str, str | int] = {
            "query.service_name": service,
            "query.num_traces": 10000,
            "query.raw_traces": "true",
        }
        return _spans(self.ask("/api/v3/traces", **parameters | window))


@pytest.fixture(scope="session")
def jaeger_program(go_build: Callable[..., Path]) -> Path:
    """Jaeger 2 from the Go module proxy, built once and kept."""
    return go_build(HERE / "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", "jaeger", keep=True)


@pytest.fixture
def jaeger(
    jaeger_program: Path, tmp_path: Path, free_port: Callable[[], int], wait_until: Callable[..., Any]
) -> Iterator[Jaeger]:
    """A Jaeger of its own, in memory, on free ports."""
    ports = {name: free_port() for name in ("grpc", "http", "query", "query_grpc")}
    config, output = tmp_path / "jaeger.yaml", tmp_path / "jaeger.txt"
    config.write_text(CONFIG.format(**ports))
    with output.open("wb") as sink:
        process = subprocess.Popen([jaeger_program, "--config", config], stdout=sink, stderr=subprocess.STDOUT)
    started = Jaeger(*(f"http://127.0.0.1:{ports[name]}" for name in ("grpc", "http", "query")))

    def ready() -> bool:
        assert process.poll() is None, f"Jaeger ended with {process.returncode}:\n{output.read_text()}"
        try:
            return started.ask("/api/v3/services") is not None
        except OSError:
            return False

    try:
        wait_until(ready, "Jaeger answers", ARRIVAL_DEADLINE_S, output.read_text)
        yield started
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _destination(jaeger: Jaeger, protocol: str) -> str:
    """As `--forward` takes it: grpc:// because the port is none that says gRPC by itself."""
    return jaeger.grpc.replace("http://", "grpc://") if protocol == "grpc" else jaeger.http


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_applications_spans_are_all_in_jaeger(
    protocol: str,
    jaeger: Jaeger,
    start_collector: Callable[..., Any],
    lake_rows: Callable[..., list[Row]],
    decoded: Callable[[Row], Row],
    differences: Callable[[str, Any, Any], list[str]],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """What the reference hub makes under load is in the lake and in Jaeger, span for span, field for field."""
    collector = start_collector("--forward", _destination(jaeger, protocol))
    begun = datetime.now(UTC) - timedelta(minutes=1)
    _drive_reference_hub(collector, tmp_path, wait_until)

    accepted = int(_accepted_spans(collector.telemetry))
    rows = [decoded(row) for row in lake_rows(collector, "otel_traces", accepted, ServiceName="reference-hub")]
    assert len(rows) == accepted, "the lake holds as many spans as the collector has acknowledged"
    names = {row["SpanName"] for row in rows}
    assert {"hub.startup", "hub.startup.phase listen"} <= names
    assert any(row["SpanAttributes"].get("db.query.text") for row in rows)
    forwarded = wait_until(
        lambda: (spans := jaeger.search("reference-hub", begun)) and len(spans) >= accepted and spans,
        f"{accepted} spans are in Jaeger",
        ARRIVAL_DEADLINE_S,
        collector.output.read_text,
    )
    assert _compared(forwarded, rows, differences) == []


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_kind_of_value_reaches_jaeger(
    protocol: str,
    jaeger: Jaeger,
    start_collector: Callable[..., Any],
    lake_rows: Callable[..., list[Row]],
    decoded: Callable[[Row], Row],
    differences: Callable[[str, Any, Any], list[str]],
    wait_until: Callable[..., Any],
) -> None:
    """Every kind of attribute value, events, links, states and counts are the same in Jaeger and in the lake."""
    collector = start_collector("--forward", _destination(jaeger, protocol))
    trace_id = os.urandom(16)
    request = _every_kind(trace_id)
    sent = urllib.request.Request(
        f"{collector.http}/v1/traces", request.SerializeToString(), {"Content-Type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(sent, timeout=10) as answer:
        assert answer.status == 200

    rows = [decoded(row) for row in lake_rows(collector, "otel_traces", 6, TraceId=trace_id.hex())]
    forwarded = wait_until(
        lambda: (spans := jaeger.trace(trace_id.hex())) and len(spans) >= 6 and spans,
        "6 spans are in Jaeger",
        ARRIVAL_DEADLINE_S,
        collector.output.read_text,
    )
    assert _compared(forwarded, rows, differences) == []


def test_a_large_trace_and_a_large_attribute_are_whole(
    jaeger: Jaeger,
    start_collector: Callable[..., Any],
    lake_rows: Callable[..., list[Row]],
    decoded: Callable[[Row], Row],
    differences: Callable[[str, Any, Any], list[str]],
    wait_until: Callable[..., Any],
) -> None:
    """10,000 spans of a trace, one with a 1 MB attribute, are whole in the lake, by `hubscope trace`, and in Jaeger."""
    collector = start_collector("--forward", jaeger.http)
    trace_id, large = os.urandom(16), "".join(chr(0x100 + index % 0x500) for index in range(1_000_000))
    for first in range(0, LARGE_TRACE, 500):
        request = ExportTraceServiceRequest()
        above = request.resource_spans.add()
        above.resource.attributes.add(key="service.name").value.string_value = "large"
        scope = above.scope_spans.add()
        for index in range(first, first + 500):
            span = scope.spans.add(trace_id=trace_id, span_id=(index + 1).to_bytes(8, "big"), name=f"span {index}")
            span.parent_span_id = ((index // 10) + 1).to_bytes(8, "big") if index else b""
            span.start_time_unix_nano = 1_700_000_000_000_000_000 + index
            span.end_time_unix_nano = 1_700_000_001_000_000_000 + index
            span.attributes.add(key="index").value.int_value = index
            if index == 7_777:
                span.attributes.add(key="large").value.string_value = large
        headers = {"Content-Type": "application/x-protobuf"}
        sent = urllib.request.Request(f"{collector.http}/v1/traces", request.SerializeToString(), headers)
        with urllib.request.urlopen(sent, timeout=30) as answer:
            assert answer.status == 200

    rows = [decoded(row) for row in lake_rows(collector, "otel_traces", LARGE_TRACE, TraceId=trace_id.hex())]
    by_index = {row["SpanAttributes"]["index"]: row for row in rows}
    assert (len(rows), sorted(by_index)) == (LARGE_TRACE, list(range(LARGE_TRACE)))
    assert by_index[7_777]["SpanAttributes"]["large"] == large

    command = [sys.executable, "-m", "hubscope.console", "trace", trace_id.hex(), "--lake", str(collector.lake)]
    told = subprocess.run([*command, "--format", "otlp"], capture_output=True, text=True, check=True)
    spans = [s for r in json.loads(told.stdout)["resourceSpans"] for c in r["scopeSpans"] for s in c["spans"]]
    values = {span["spanId"]: {pair["key"]: pair["value"] for pair in span["attributes"]} for span in spans}
    assert (len(spans), len(values)) == (LARGE_TRACE, LARGE_TRACE)
    assert values[f"{7_778:016x}"]["large"] == {"stringValue": large}
    drawn = subprocess.run([*command, "--all"], capture_output=True, text=True, check=True)
    assert all(f"span {index}" in drawn.stdout for index in (0, 7_777, LARGE_TRACE - 1))

    forwarded = wait_until(
        lambda: (found := jaeger.trace(trace_id.hex())) and len(found) >= LARGE_TRACE and found,
        f"{LARGE_TRACE} spans are in Jaeger",
        ARRIVAL_DEADLINE_S,
        collector.output.read_text,
    )
    assert _compared(forwarded, rows, differences) == []


def _drive_reference_hub(collector: Any, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """Starts examples/reference_hub under `hubscope run`, lets users work with it, and stops it."""
    data, output = tmp_path / "data", tmp_path / "hub.txt"
    python = [sys.executable, "-m"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "HUBSCOPE_"))}
    environment["PYTHONPATH"] = str(REPOSITORY / "examples")
    prepare = [*python, "reference_hub.prepare", "--data", str(data), "--memories", "500"]
    subprocess.run(prepare, env=environment, check=True, capture_output=True, timeout=120)
    command = [*python, "hubscope.console", "run", "--service", "reference-hub", "--version", "1"]
    command += ["--collector", collector.http, "--"]
    command += [*python, "reference_hub", "--data", str(data), "--port", "0", "--version-preset", "1"]
    with output.open("wb") as sink:
        hub = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        listening = wait_until(
            lambda: hub.poll() is not None or re.search(r"listening on (http://\S+)", output.read_text()),
            "the reference hub listens",
            60.0,
            output.read_text,
        )
        assert hub.poll() is None, f"the reference hub ended with {hub.returncode}:\n{output.read_text()}"
        load = [*python, "reference_hub.load", listening.group(1)]
        done = subprocess.run(load, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\nthe hub said:\n{output.read_text()}"
        hub.send_signal(signal.SIGTERM)
        assert hub.wait(30) == 0, f"the reference hub ended with {hub.returncode}:\n{output.read_text()}"
    finally:
        if hub.poll() is None:
            hub.kill()
            hub.wait()


def _accepted_spans(telemetry: str) -> float:
    with urllib.request.urlopen(f"{telemetry}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^otelcol_receiver_accepted_spans(?:_total)?(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE)
    assert found, f"/metrics has no otelcol_receiver_accepted_spans:\n{text}"
    return sum(map(float, found))


def _every_kind(trace_id: bytes) -> ExportTraceServiceRequest:
    """One server span that has everything, one child of each kind, and a bare one of another resource."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.37.0")
    _put(resource_spans.resource, "service.name", "every-kind")
    _put(resource_spans.resource, "res.list", ["a", 1])
    scope_spans = resource_spans.scope_spans.add(schema_url="https://opentelemetry.io/schemas/1.36.0")
    scope_spans.scope.name, scope_spans.scope.version = "by-hand", "0.1"
    _put(scope_spans.scope, "scope.flag", True)
    start = time.time_ns() - 10_000_000_000
    span = scope_spans.spans.add(
        trace_id=trace_id,
        span_id=b"\1" * 8,
        name="everything ünïcode €",
        kind=2,
        trace_state="vendor=state",
        flags=0x301,
        parent_span_id=b"\xaa" * 8,
        start_time_unix_nano=start + 1,
        end_time_unix_nano=start + 1_000_000_008,
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=3,
    )
    span.status.code, span.status.message = Status.STATUS_CODE_ERROR, "naïve"
    values = {
        "string": "text é € 𝄞",
        "string.empty": "",
        "int": 42,
        "int.min": -(2**63),
        "int.max": 2**63 - 1,
        "int.zero": 0,
        "double": 0.1,
        "double.whole": 3.0,
        "double.tiny": 5e-324,
        "double.huge": 1.7976931348623157e308,
        "double.nan": math.nan,
        "double.infinite": -math.inf,
        "true": True,
        "false": False,
        "bytes": b"\x00\x01\xfe\xff",
        "bytes.empty": b"",
        "list": ["x", 1, 2.5, True, None, b"\x01", ["deep", {"deeper": 1}]],
        "list.empty": [],
        "map": {"a": {"b": {"c": [1, 2]}}, "n": None, "bytes": b"\x02"},
        "map.empty": {},
        "nothing": None,
    }
    for key, value in values.items():
        _put(span, key, value)
    event = span.events.add(time_unix_nano=start + 5, name="first", dropped_attributes_count=4)
    for key, value in values.items():
        _put(event, key, value)
    span.events.add(time_unix_nano=start + 6, name="bare")
    link = span.links.add(
        trace_id=b"\2" * 16, span_id=b"\3" * 8, trace_state="l=1", flags=0x101, dropped_attributes_count=5
    )
    for key, value in values.items():
        _put(link, key, value)
    for kind in (1, 3, 4, 5):
        child = scope_spans.spans.add(
            trace_id=trace_id,
            span_id=bytes([kind]) * 7 + b"\7",
            name=f"kind {kind}",
            kind=kind,
            parent_span_id=b"\1" * 8,
            start_time_unix_nano=start,
            end_time_unix_nano=start + kind,
        )
        child.status.code = (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_OK)[kind % 2]
    bare = request.resource_spans.add()
    _put(bare.resource, "service.name", "every-kind-bare")
    bare.scope_spans.add().spans.add(
        trace_id=trace_id, span_id=b"\6" * 8, name="bare", start_time_unix_nano=start, end_time_unix_nano=start
    )
    return request


def _put(owner: Any, key: str, value: Any) -> None:
    _fill(owner.attributes.add(key=key).value, value)


def _fill(target: Any, value: Any) -> None:
    """An AnyValue from a Python value; None stays an empty one."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for item in value:
            _fill(target.array_value.values.add(), item)
    elif isinstance(value, dict):
        target.kvlist_value.SetInParent()
        for key, item in value.items():
            _fill(target.kvlist_value.values.add(key=key).value, item)
    else:
        assert value is None, value


# Jaeger's answer, OTLP/JSON under `result`, in the columns of the lake.

KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
STATUS_CODES = ("Unset", "Ok", "Error")


def _spans(answer: Any) -> list[Row]:
    return [
        _span(resource, scope, span)
        for resource in (answer or {"result": {}})["result"].get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for span in scope["spans"]
    ]


def _span(resource_spans: Any, scope_spans: Any, span: Any) -> Row:
    """Without the schema URLs: Jaeger's memory storage does not keep them."""
    resource, scope = resource_spans.get("resource", {}), scope_spans.get("scope", {})
    start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
    return {
        "TimestampUnixNano": start,
        "TraceId": span["traceId"],
        "SpanId": span["spanId"],
        "ParentSpanId": span.get("parentSpanId", ""),
        "TraceState": span.get("traceState", ""),
        "SpanName": span.get("name", ""),
        "SpanKind": KINDS[span.get("kind", 0)],
        "ServiceName": _attributes(resource).get("service.name", ""),
        "ResourceAttributes": _attributes(resource),
        "ResourceDroppedAttributesCount": resource.get("droppedAttributesCount", 0),
        "ScopeName": scope.get("name", ""),
        "ScopeVersion": scope.get("version", ""),
        "ScopeAttributes": _attributes(scope),
        "ScopeDroppedAttrCount": scope.get("droppedAttributesCount", 0),
        "SpanAttributes": _attributes(span),
        "Duration": end - start,
        "StatusCode": STATUS_CODES[span.get("status", {}).get("code", 0)],
        "StatusMessage": span.get("status", {}).get("message", ""),
        "Events": [
            {
                "TimestampUnixNano": int(event.get("timeUnixNano", 0)),
                "Name": event.get("name", ""),
                "Attributes": _attributes(event),
                "DroppedAttributesCount": event.get("droppedAttributesCount", 0),
            }
            for event in span.get("events", ())
        ],
        "Links": [
            {
                "TraceId": link["traceId"],
                "SpanId": link["spanId"],
                "TraceState": link.get("traceState", ""),
                "Attributes": _attributes(link),
                "DroppedAttributesCount": link.get("droppedAttributesCount", 0),
                "Flags": link.get("flags", 0),
            }
            for link in span.get("links", ())
        ],
        "TraceFlags": span.get("flags", 0),
        "DroppedAttributesCount": span.get("droppedAttributesCount", 0),
        "DroppedEventsCount": span.get("droppedEventsCount", 0),
        "DroppedLinksCount": span.get("droppedLinksCount", 0),
    }


def _attributes(owner: Any) -> Row:
    return {pair["key"]: _value(pair.get("value", {})) for pair in owner.get("attributes", ())}


def _value(value: Any, nested: bool = False) -> Any:
    """A value as `decoded` gives the lake's: nested bytes, and numbers that JSON lacks, stand as OTLP/JSON has them."""
    for kind, content in (value or {}).items():
        match kind:
            case "stringValue" | "boolValue":
                return content
            case "intValue":
                return int(content)
            case "doubleValue":
                number = float(content)
                return value if nested and not math.isfinite(number) else number
            case "bytesValue":
                return value if nested else b64decode(content)
            case "arrayValue":
                return [_value(item, nested=True) for item in content.get("values", ())]
            case "kvlistValue":
                return {pair["key"]: _value(pair.get("value", {}), nested=True) for pair in content.get("values", ())}
    return None


def _compared(found: list[Row], rows: list[Row], differences: Callable[[str, Any, Any], list[str]]) -> list[str]:
    """Jaeger's spans against the lake's rows, both ways, by span id. The lake has more columns: its partition, its hot
    columns, times in microseconds, schema URLs.
    """
    jaeger = {(span["TraceId"], span["SpanId"]): span for span in found}
    lake = {(row["TraceId"], row["SpanId"]): row for row in rows}
    problems = [f"{len(found) - len(jaeger)} spans stand twice in Jaeger"] if len(found) != len(jaeger) else []
    problems += [f"{lake[key]['SpanName']}: not in Jaeger" for key in lake.keys() - jaeger.keys()]
    problems += [f"{jaeger[key]['SpanName']}: not in the lake" for key in jaeger.keys() - lake.keys()]
    for key in lake.keys() & jaeger.keys():
        row = {column: lake[key][column] for column in jaeger[key]}
        if row["Duration"] == 0:  # Jaeger makes such a span 1 ns long, and says so
            warning = jaeger[key]["SpanAttributes"].pop("@jaeger@warnings", None)
            assert (jaeger[key]["Duration"], bool(warning)) == (1, True), jaeger[key]
            jaeger[key]["Duration"] = 0
        row["Events"] = [{k: v for k, v in event.items() if k != "Timestamp"} for event in row["Events"]]
        problems += differences(row["SpanName"], jaeger[key], row)
    return problems

"""`hubscope import`: files of every kind it takes, bad ones, and the same one twice."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner, Result
from deltalake import DeltaTable
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from hubscope.collector.imports import chunks, import_files
from hubscope.collector.imports.import_formats import requests_in, signal_of
from hubscope.collector.log.wal import Signal
from hubscope.collector.otlp.otlp_json import to_protobuf
from hubscope.console.main import main
from hubscope.errors import BadInputError, LakeError
from hubscope.lake_schema import GAUGE, LOGS, TRACES
from hubscope.processors.rules_file import load


def traces(*names: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    above = request.resource_spans.add()
    above.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="shop")))
    spans = above.scope_spans.add().spans
    for number, name in enumerate(names, start=1):
        spans.add(name=name, trace_id=bytes([number]) * 16, span_id=bytes([number]) * 8, start_time_unix_nano=10**18)
    return request


def logs(*bodies: str) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for body in bodies:
        records.add(body=AnyValue(string_value=body), time_unix_nano=10**18, severity_text="INFO")
    return request


def gauge(name: str, value: float) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name, unit="s")
    metric.gauge.data_points.add(as_double=value, time_unix_nano=10**18)
    return request


def otlp_json(request: Any) -> str:
    """The request as OTLP/JSON: protobuf's JSON with ids as hexadecimal and enums as numbers."""

    def ids(value: Any) -> Any:
        if isinstance(value, list):
            return [ids(member) for member in value]
        if isinstance(value, dict):
            hexadecimal = ("traceId", "spanId", "parentSpanId")
            return {k: base64.b64decode(v).hex() if k in hexadecimal else ids(v) for k, v in value.items()}
        return value

    return json.dumps(ids(MessageToDict(request, use_integers_for_enums=True)))


def run(lake: Path, *arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["import", "--lake", str(lake), *arguments], input=stdin)


def names(lake: Path, table: str = TRACES, column: str = "SpanName") -> list[str]:
    found: list[str] = DeltaTable(f"{lake}/{table}").to_pyarrow_table(columns=[column])[column].to_pylist()
    return sorted(found)


def own_gauges(lake: Path) -> list[str]:
    return [name for name in names(lake, GAUGE, "MetricName") if name != "hub.kpi.value"]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def test_json_lines_of_all_signals(tmp_path: Path, lake: Path) -> None:
    """Lines of spans, logs and points in one file all become rows, and the counts are told."""
    file = tmp_path / "all.json"
    file.write_text(
        "\n".join([otlp_json(traces("a", "b")), otlp_json(logs("hello")), otlp_json(gauge("g", 1.5))]) + "\n"
    )
    result = run(lake, str(file))
    assert result.exit_code == 0, result.output
    assert f"{file}: 4 accepted, 0 rejected" in result.stdout
    assert names(lake) == ["a", "b"]
    assert names(lake, LOGS, "Body") == ["hello"]
    assert own_gauges(lake) == ["g"]


def test_a_file_twice_adds_nothing(tmp_path: Path, lake: Path) -> None:
    """The same bytes under another name are known, and nothing is added."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(otlp_json(traces("a")) + "\n")
    two.write_bytes(one.read_bytes())
    run(lake, str(one))
    result = run(lake, str(one), str(two))
    assert result.exit_code == 0
    assert result.stdout.count("1 accepted, all of them in the lake already, 0 rejected") == 2
    assert names(lake) == ["a"]


def test_an_interrupted_import_goes_on(tmp_path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in the lake before the interruption is not added again; the rest is."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    file = tmp_path / "many.json"
    file.write_text("".join(otlp_json(traces(f"s{number}")) + "\n" for number in range(5)))
    seen = 0
    taken = import_files.batch_of

    def interrupted(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt
        return taken(*arguments)

    monkeypatch.setattr(import_files, "batch_of", interrupted)
    result = run(lake, str(file))
    assert result.exit_code == 130
    assert "goes on where this one stopped" in result.stderr
    assert names(lake) == ["s0", "s1", "s2"]
    result = run(lake, str(file))
    assert "5 accepted, 3 in the lake already, 0 rejected" in result.stdout
    assert names(lake) == [f"s{number}" for number in range(5)]


def test_a_half_written_last_line_is_counted(tmp_path: Path, lake: Path) -> None:
    """A file that is still being written gives its whole lines; the last one is a rejection with its place."""
    file = tmp_path / "growing.json"
    text = otlp_json(traces("b"))
    file.write_text(otlp_json(traces("a")) + "\n" + text[: len(text) // 2])
    result = run(lake, str(file))
    assert result.exit_code == 0
    assert "1 accepted, 1 rejected" in result.stdout
    assert f"{file}:2: the last line was cut off" in result.stderr
    assert names(lake) == ["a"]


def test_bad_lines_are_counted_with_their_places(tmp_path: Path, lake: Path) -> None:
    """Bad lines between good ones are named with file and line, the first ten of them."""
    bad = ["nonsense", "{}", '{"resourceSpans": 3}', "[]"] * 4
    file = tmp_path / "mixed.json"
    file.write_text("\n".join([otlp_json(traces("a")), *bad, otlp_json(traces("b"))]) + "\n")
    result = run(lake, str(file))
    assert result.exit_code == 0
    assert "2 accepted, 16 rejected" in result.stdout
    assert f"{file}:2: not JSON" in result.stderr
    assert f"{file}:3: neither resourceSpans" in result.stderr
    assert f"{file}:4: resourceSpans: must be a list, got 3" in result.stderr
    assert "… and 6 more" in result.stderr
    assert names(lake) == ["a", "b"]


def test_ids_of_a_wrong_length_are_rejected_with_their_place(tmp_path: Path, lake: Path) -> None:
    """In JSON lines and in length-prefixed protobuf: the message is rejected whole, named, and the rest is taken."""
    bad = traces("c", "d")
    bad.resource_spans[0].scope_spans[0].spans[1].span_id = b"short"
    lines, messages = tmp_path / "lines.json", tmp_path / "messages"
    lines.write_text("\n".join([otlp_json(traces("a")), otlp_json(bad)]) + "\n")
    data = [request.SerializeToString() for request in (bad, traces("b"))]
    messages.write_bytes(b"".join(len(d).to_bytes(4, "big") + d for d in data))
    result = run(lake, str(lines), str(messages))
    assert result.exit_code == 0
    assert result.stdout.count("1 accepted, 1 rejected") == 2
    sentence = "spans with a span_id of 5 B instead of 8 B: 1"
    assert f"{lines}:2: {sentence}" in result.stderr
    assert f"{messages}:message 1: {sentence}" in result.stderr
    assert names(lake) == ["a", "b"]


def test_a_file_of_nothing_good_ends_with_4(tmp_path: Path, lake: Path) -> None:
    """A file without one request that can be taken is an answer with exit code 4, not a success."""
    file = tmp_path / "letter.txt"
    file.write_text("Dear all,\nthis is no telemetry.\n")
    result = run(lake, str(file))
    assert result.exit_code == 4
    assert "0 accepted, 1 rejected" in result.stdout


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x00", b"\x00\x00\x00\x05ab", b"\x28\xb5\x2f\xfdxxxxxxxx", b"\xff" * 50]
)
def test_broken_bytes_are_rejected_without_a_traceback(tmp_path: Path, lake: Path, content: bytes) -> None:
    """Empty, cut-off and random files give one rejection with a reason."""
    file = tmp_path / "broken"
    file.write_bytes(content)
    result = run(lake, str(file))
    assert result.exit_code == 4, result.output
    assert "0 accepted, 1 rejected" in result.stdout
    assert str(file) in result.stderr


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_what_cannot_be_read_is_named(tmp_path: Path, lake: Path, kind: str) -> None:
    """A path that is not there, or a folder, is one message with the way out and exit code 4."""
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    result = run(lake, str(path))
    assert result.exit_code == 4
    assert str(path) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_document_over_many_lines(tmp_path: Path, lake: Path) -> None:
    """A single indented document is one request."""
    file = tmp_path / "pretty.json"
    file.write_text(json.dumps(json.loads(otlp_json(traces("a", "b"))), indent=2))
    assert "2 accepted, 0 rejected" in run(lake, str(file)).stdout
    assert names(lake) == ["a", "b"]


def test_standard_input(lake: Path) -> None:
    """`-` reads stdin, and knows the same input again."""
    text = (otlp_json(traces("a")) + "\n").encode()
    assert "stdin: 1 accepted, 0 rejected" in run(lake, "-", stdin=text).stdout
    assert "all of them in the lake already" in run(lake, "-", stdin=text).stdout


def test_a_compressed_file(tmp_path: Path, lake: Path) -> None:
    """A zstd-compressed file of lines, of two frames, is read through."""
    file = tmp_path / "lines.json.zst"
    compress = zstandard.ZstdCompressor().compress
    file.write_bytes(b"".join(compress((otlp_json(traces(name)) + "\n").encode()) for name in "ab"))
    assert "2 accepted, 0 rejected" in run(lake, str(file)).stdout


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("encoding", ["proto", "json"])
def test_length_prefixed_messages(tmp_path: Path, lake: Path, compressed: bool, encoding: str) -> None:
    """The file exporter's length-prefixed form, in protobuf and JSON, each message compressed or not."""
    file = tmp_path / "messages"
    with file.open("wb") as out:
        for request in (traces("a"), logs("hello"), gauge("g", 1.0), traces("b")):
            data = request.SerializeToString() if encoding == "proto" else otlp_json(request).encode()
            if compressed:
                data = zstandard.ZstdCompressor().compress(data)
            out.write(len(data).to_bytes(4, "big") + data)
    result = run(lake, str(file))
    assert "4 accepted, 0 rejected" in result.stdout, result.output
    assert names(lake) == ["a", "b"]
    assert names(lake, LOGS, "Body") == ["hello"]
    assert own_gauges(lake) == ["g"]


def test_a_dead_letter_can_be_imported(tmp_path: Path, lake: Path) -> None:
    """The payload beside a dead letter's reason is read as the signal that its name says."""
    file = tmp_path / f"{7:016d}-{0:06d}.traces.otlp"
    file.write_bytes(traces("a").SerializeToString())
    assert "1 accepted, 0 rejected" in run(lake, str(file)).stdout


def test_jaeger_json(tmp_path: Path, lake: Path) -> None:
    """A Jaeger answer becomes spans with their service, kind, status, parent, events and typed attributes."""
    span = {
        "traceID": "1f",
        "spanID": "2",
        "operationName": "GET /",
        "references": [{"refType": "CHILD_OF", "traceID": "1f", "spanID": "1"}],
        "startTime": 1_700_000_000_000_001,
        "duration": 1500,
        "tags": [
            {"key": "span.kind", "type": "string", "value": "server"},
            {"key": "error", "type": "bool", "value": True},
            {"key": "http.status_code", "type": "int64", "value": 500},
        ],
        "logs": [{"timestamp": 1_700_000_000_000_002, "fields": [{"key": "event", "type": "string", "value": "oops"}]}],
        "processID": "p1",
        "warnings": None,
    }
    trace = {"traceID": "1f", "spans": [span], "processes": {"p1": {"serviceName": "shop", "tags": []}}}
    file = tmp_path / "jaeger.json"
    file.write_text(json.dumps({"data": [trace], "total": 0, "limit": 0, "errors": None}))
    assert "1 accepted, 0 rejected" in run(lake, str(file)).stdout
    (row,) = DeltaTable(f"{lake}/{TRACES}").to_pyarrow_table().to_pylist()
    assert (row["TraceId"], row["SpanId"], row["ParentSpanId"]) == (
        "1f".rjust(32, "0"),
        "2".rjust(16, "0"),
        "1".rjust(16, "0"),
    )
    assert (row["ServiceName"], row["SpanName"], row["SpanKind"], row["StatusCode"]) == (
        "shop",
        "GET /",
        "Server",
        "Error",
    )
    assert (row["TimestampUnixNano"], row["Duration"]) == (1_700_000_000_000_001_000, 1_500_000)
    assert dict(row["SpanAttributes"])["http.status_code"] == "500"
    assert dict(row["SpanAttributeTypes"]) == {"error": "bool", "http.status_code": "int"}
    assert row["Events"][0]["Name"] == "oops"


def test_a_broken_jaeger_span_is_named(tmp_path: Path, lake: Path) -> None:
    """A span without its fields is a rejection that says which."""
    trace = {"traceID": "1f", "spans": [{"traceID": "1f", "spanID": "2"}], "processes": {}}
    file = tmp_path / "jaeger.json"
    file.write_text(json.dumps({"data": [trace]}))
    result = run(lake, str(file))
    assert result.exit_code == 4
    assert "Jaeger trace 1f, span 0: 'process' is missing" in result.stderr


def test_a_lake_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A lake whose path is a file raises a LakeError with its path."""
    (tmp_path / "lake").write_text("a file")
    file = tmp_path / "a.json"
    file.write_text(otlp_json(traces("a")))
    with pytest.raises(LakeError, match="lake"):
        import_files.import_file(file, str(tmp_path / "lake"), load())


@pytest.mark.parametrize("request_", [traces("a"), logs("b"), gauge("c", 1.0)])
def test_the_signal_of_protobuf_is_found(request_: Any) -> None:
    """What kind of request bytes are is found from their content."""
    wanted = {"resource_spans": Signal.TRACES, "resource_logs": Signal.LOGS, "resource_metrics": Signal.METRICS}
    assert signal_of(request_.SerializeToString()) is wanted[request_.DESCRIPTOR.fields[0].name]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "must be an object"),
        (
            '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":null}]}]}]}',
            r"spans\[0\].traceId: must be hexadecimal",
        ),
        ('{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SERVER"}]}]}]}', r"spans\[0\].kind: must be an integer"),
        ('{"resourceSpans":[{"scopeSpans":[{"spans":[{"flags":-1}]}]}]}', "between 0 and 4294967295"),
        ('{"resourceSpans":[null]}', r"resourceSpans\[0\]: must be an object"),
        ('{"resourceSpans":[{"schemaUrl":"\\ud800"}]}', "not OTLP/JSON"),
        ('{"resourceSpans":' + "[" * 5000, "nested too deep|not JSON"),
        ('{"a": NaN}', "not JSON"),
    ],
)
def test_wrong_json_is_named_with_its_path(text: str, problem: str) -> None:
    """Each mistake is one error of the input that says where it stands."""
    with pytest.raises(BadInputError, match=problem):
        to_protobuf(text, Signal.TRACES)


def test_json_takes_what_the_specification_allows() -> None:
    """Ids in capitals, 64-bit numbers as text, number and exponent, both base64 alphabets, nulls, unknown keys."""
    text = """{"unknown": [1], "resourceSpans": [{"resource": null, "scopeSpans": [{"spans": [{
        "traceId": "ABCDEF00000000000000000000000001", "spanId": "00000000000000ff", "parentSpanId": "",
        "startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": 1.7e18, "kind": 2, "flags": "257",
        "attributes": [{"key": "b", "value": {"bytesValue": "-_8"}}, {"key": "d", "value": {"doubleValue": "NaN"}},
                       {"key": "i", "value": {"intValue": -5}}, {"key": "e", "value": {}}, {"key": "n", "value": null}]
    }]}]}]}"""
    span = (
        ExportTraceServiceRequest.FromString(to_protobuf(text, Signal.TRACES)).resource_spans[0].scope_spans[0].spans[0]
    )
    assert (span.trace_id[:3], span.span_id[-1], span.parent_span_id) == (b"\xab\xcd\xef", 255, b"")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (
        1_700_000_000_000_000_001,
        1_700_000_000_000_000_000,
    )
    assert (span.kind, span.flags) == (2, 257)
    assert span.attributes[0].value.bytes_value == b"\xfb\xff"
    assert str(span.attributes[1].value.double_value) == "nan"
    assert span.attributes[2].value.int_value == -5
    assert span.attributes[3].HasField("value")
    assert not span.attributes[4].HasField("value")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 2**63 - 1)), max_size=4))
def test_json_means_what_the_protobuf_means(spans: list[tuple[str, int]]) -> None:
    """A request written as OTLP/JSON converts to the protobuf it came from."""
    request = traces(*[name for name, _ in spans])
    for span, (_, start) in zip(request.resource_spans[0].scope_spans[0].spans, spans, strict=True):
        span.start_time_unix_nano = start
        span.attributes.append(KeyValue(key="start", value=AnyValue(int_value=start)))
    assert ExportTraceServiceRequest.FromString(to_protobuf(otlp_json(request), Signal.TRACES)) == request


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever a file holds, reading it gives requests or reasons."""
    file = tmp_path_factory.getbasetemp() / "random"
    file.write_bytes(content)
    for found in requests_in(file):
        assert bool(found.requests) != bool(found.problem)

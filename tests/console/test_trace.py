"""`hubscope trace`: a tree, its JSON, and OTLP that another backend takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope import lake_values

Hubscope = Callable[..., Result]
TRACE = "b" * 32


def test_the_tree_marks_the_critical_path(hubscope: Hubscope, lake: Path) -> None:
    """The text shows each span under its parent with duration and self time; the repeated query shares a line."""
    result = hubscope("trace", TRACE, "--lake", lake)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"trace {TRACE}"
    assert any(line.endswith("● task open") and "300 ms" in line for line in lines)
    assert any("8 × SELECT tags" in line for line in lines)
    every = hubscope("trace", TRACE, "--lake", lake, "--all").stdout
    assert every.count("  SELECT tags") == 8


def test_a_prefix_is_enough_where_it_is_unique(hubscope: Hubscope, lake: Path) -> None:
    """The first digits of an id stand for it; several candidates are named, and none is an error of its own."""
    assert hubscope("trace", "bb", "--lake", lake).stdout == hubscope("trace", TRACE, "--lake", lake).stdout
    several = hubscope("trace", "0", "--lake", lake)
    assert several.exit_code == 2
    assert "01" + "a" * 30 in several.stderr
    assert hubscope("trace", "ffff", "--lake", lake).exit_code == 4
    assert hubscope("trace", "no-id", "--lake", lake).exit_code == 2


def test_json_is_the_documented_shape(hubscope: Hubscope, lake: Path) -> None:
    """--format json validates against the shipped schema, and its critical path sums to the root's duration."""
    import jsonschema

    from hubscope.analytics.model import json_schema

    found = json.loads(hubscope("trace", TRACE, "--lake", lake, "--format", "json").stdout)
    jsonschema.validate(found, json_schema("trace"))
    path_ns = sum(s["end_unix_nano"] - s["start_unix_nano"] for s in found["critical_path"])
    assert path_ns == round(found["duration"] * 1e9)


def test_otlp_is_taken_by_the_official_parser(hubscope: Hubscope, lake: Path) -> None:
    """--format otlp parses as an ExportTraceServiceRequest with every span and the types of its attributes."""
    text = hubscope("trace", TRACE, "--lake", lake, "--format", "otlp").stdout
    document = json.loads(text)
    for group in document["resourceSpans"]:  # OTLP's JSON writes ids in hex, protobuf's own in base64
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                assert len(span["traceId"]) == 32
                for key in ("traceId", "spanId", "parentSpanId"):
                    span.pop(key, None)
    request = json_format.ParseDict(document, ExportTraceServiceRequest())
    spans = [s for group in request.resource_spans for scope in group.scope_spans for s in scope.spans]
    assert len(spans) == 11
    search = next(s for s in spans if s.name == "search memories")
    values = {a.key: a.value for a in search.attributes}
    assert values["hub.vector.top_k"].int_value == 10
    assert values["db.system.name"].string_value == "usearch"
    assert [(e.name, e.attributes[0].value.int_value) for e in search.events] == [("noted", 3)]
    assert search.end_time_unix_nano - search.start_time_unix_nano == 20_000_000


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("a", "", {"stringValue": "a"}),
        ("9223372036854775807", "int", {"intValue": "9223372036854775807"}),
        ("1.5", "double", {"doubleValue": 1.5}),
        ("nan", "double", {"doubleValue": "NaN"}),
        ("-inf", "double", {"doubleValue": "-Infinity"}),
        ("true", "bool", {"boolValue": True}),
        ("AAE=", "bytes", {"bytesValue": "AAE="}),
        ("", "empty", {}),
        (  # a list of keys that happens to look like what JSON has no form for
            '{"doubleValue": 3}',
            "kvlist",
            {"kvlistValue": {"values": [{"key": "doubleValue", "value": {"intValue": "3"}}]}},
        ),
        ('{"doubleValue": "NaN"}', "kvlist", {"doubleValue": "NaN"}),
        (
            '[1, 2.0, "x", true, null, {"bytesValue": "AA=="}, {"k": [1]}]',
            "array",
            {
                "arrayValue": {
                    "values": [
                        {"intValue": "1"},
                        {"doubleValue": 2.0},
                        {"stringValue": "x"},
                        {"boolValue": True},
                        {},
                        {"bytesValue": "AA=="},
                        {
                            "kvlistValue": {
                                "values": [{"key": "k", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}}]
                            }
                        },
                    ]
                }
            },
        ),
    ],
)
def test_every_kind_of_value_comes_back(text: str, kind: str, value: object) -> None:
    """The lake's text and type name make the AnyValue that was sent."""
    assert lake_values.any_value(text, kind) == value

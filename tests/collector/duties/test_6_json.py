"""Duty 6: OTLP/JSON is ProtoJSON with hex ids and integer enums: what a sender may write is read as what it means."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest

from tests.collector.duties.wire import JSON, SIGNALS, Target, marker, span_json

UINT64_MAX = 2**64 - 1
INT64_MIN = -(2**63)


def attribute(value: Any) -> bytes:
    return span_json(attributes=[{"key": "k", "value": value}])


def taken(target: Target, value: Any) -> Any:
    """An AnyValue as it was sent on."""
    return target.kept_span(attribute(value)).attributes[0].value


def number(target: Target, field: str, text: str) -> Any:
    """A number in a span, written as this JSON."""
    name = marker()
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"name":"{name}","{field}":{text}}}]}}]}}]}}'
    return target.kept_span(body, name)


@pytest.mark.parametrize(
    "text", ["5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c", "5b8EFFF798038103d269B633813fc60C"]
)
def test_ids_are_hexadecimal_in_either_case(target: Target, text: str) -> None:
    """traceId and spanId are hex in either case, everywhere. (JSON Protobuf Encoding)"""
    link = {"traceId": text, "spanId": text[:16]}
    span = target.kept_span(span_json(traceId=text, spanId=text[:16], parentSpanId=text[16:], links=[link]))
    want = bytes.fromhex(text)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (want, want[:8], want[8:])
    assert (span.links[0].trace_id, span.links[0].span_id) == (want, want[:8])


def test_ids_of_log_records_are_hexadecimal(target: Target) -> None:
    """The ids of a log record are hex too."""
    record = {"traceId": "5B8E" * 8, "spanId": "eee1" * 4, "severityText": (name := marker())}
    target.post_json({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}, "/v1/logs")
    kept = target.kept(name, SIGNALS["logs"]).resource_logs[0].scope_logs[0].log_records[0]
    assert (kept.trace_id.hex(), kept.span_id.hex()) == ("5b8e" * 8, "eee1" * 4)


def test_ids_of_exemplars_are_hexadecimal(target: Target) -> None:
    """The ids of an exemplar are hex too."""
    exemplar = {"traceId": "5B8E" * 8, "spanId": "eee1" * 4, "asDouble": 1}
    metric = {"name": (name := marker()), "gauge": {"dataPoints": [{"asInt": "3", "exemplars": [exemplar]}]}}
    target.post_json({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}, "/v1/metrics")
    kept = target.kept(name, SIGNALS["metrics"]).resource_metrics[0].scope_metrics[0].metrics[0]
    assert kept.gauge.data_points[0].exemplars[0].trace_id.hex() == "5b8e" * 8


@pytest.mark.parametrize("text", ["xyz", "5B8", "W47/95gDgQPSabYzgT/GDA==", "5b 8e", "0x5b8e"])
def test_ids_that_are_no_hex_are_400(target: Target, text: str) -> None:
    """An id of odd digits, of base64 or with a prefix is bad data."""
    answer = target.post(span_json(traceId=text), JSON)
    assert answer.code == 400


@pytest.mark.parametrize("field", ["traceId", "spanId", "parentSpanId"])
def test_a_null_id_is_400(target: Target, field: str) -> None:
    """null, absent elsewhere, is no id."""
    assert target.post(span_json(**{field: None}), JSON).code == 400


@pytest.mark.parametrize("value", [1, True, ["5b"], {}])
def test_an_id_that_is_no_text_is_400(target: Target, value: Any) -> None:
    """An id is text."""
    assert target.post(span_json(traceId=value), JSON).code == 400


def test_an_empty_parent_is_none(target: Target) -> None:
    """An empty parentSpanId is a root's."""
    assert target.kept_span(span_json(parentSpanId="")).parent_span_id == b""


@pytest.mark.parametrize("value", [0, 1, 5])
def test_enums_are_integers(target: Target, value: int) -> None:
    """Enum values are integers. (MUST)"""
    assert target.kept_span(span_json(kind=value)).kind == value


@pytest.mark.parametrize("value", ["SPAN_KIND_SERVER", "2", "", True, 1.5, [2]])
def test_enum_names_are_400(target: Target, value: Any) -> None:
    """Enum names, and whatever else is no integer, are bad data. (the enum name strings MUST NOT be used)"""
    assert target.post(span_json(kind=value), JSON).code == 400


def test_enum_values_of_the_future_are_kept(target: Target) -> None:
    """An integer that no enum value has yet is kept. (proto3 enums are open)"""
    assert target.kept_span(span_json(kind=77)).kind == 77


def test_unknown_keys_are_ignored(target: Target) -> None:
    """Keys that the message does not know are ignored at every level, whatever they hold. (MUST)"""
    name, odd = marker(), {"a": [{"b": None}, 1.5, "x", [[]]]}
    span = {"name": name, "future": odd, "status": {"code": 1, "reason": odd}, "attributes": [{"key": "k", "x": odd}]}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span], "z": odd}], "y": odd}], "$schema": odd}
    kept = target.kept_span(json.dumps(body), name)
    assert (kept.status.code, kept.attributes[0].key) == (1, "k")


def test_a_huge_integer_in_an_unknown_key_is_ignored(target: Target) -> None:
    """Valid JSON, though Python refuses to read an integer of more than 4,300 digits: at every level, in lists too."""
    for digits in (400, 4_301, 100_000):
        name = marker()
        span = span_json(name=name, future="?", list=["?", {"a": "?"}])
        assert target.kept_span(span.replace(b'"?"', b"-" + b"9" * digits), name).name == name


def test_original_names_are_unknown_keys(target: Target) -> None:
    """Keys are lowerCamelCase; the proto's own names are not valid, so they are ignored like any unknown key."""
    span = target.kept_span(span_json(trace_state="a=1", start_time_unix_nano="5", endTimeUnixNano="7"))
    assert (span.trace_state, span.start_time_unix_nano, span.end_time_unix_nano) == ("", 0, 7)


@pytest.mark.parametrize("key", ["Name", "NAME", "starttimeunixnano", "TraceState"])
def test_keys_have_a_case(target: Target, key: str) -> None:
    """Keys are compared with their case."""
    span = target.kept_span(span_json(**{key: "x"}))
    assert (span.trace_state, span.start_time_unix_nano) == ("", 0)


@pytest.mark.parametrize(
    "text", ["1544712660000000000", '"1544712660000000000"', "1.54471266e18", '"1.54471266e18"', '"1.54471266E+18"']
)
def test_64_bit_numbers_are_text_or_numbers(target: Target, text: str) -> None:
    """fixed64 and int64 come as decimal text or as a number, with an exponent too. (ProtoJSON)"""
    assert number(target, "startTimeUnixNano", text).start_time_unix_nano == 1544712660000000000


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (str(UINT64_MAX), UINT64_MAX),
        (f'"{UINT64_MAX}"', UINT64_MAX),
        ("0", 0),
        ('"0"', 0),
        ("-0", 0),
        ("1.0", 1),
        ("1e0", 1),
    ],
)
def test_the_whole_range_of_uint64(target: Target, text: str, want: int) -> None:
    """Unsigned 64-bit numbers are exact up to their last one."""
    assert number(target, "startTimeUnixNano", text).start_time_unix_nano == want


@pytest.mark.parametrize(
    "text",
    [
        str(UINT64_MAX + 1),
        "-1",
        '"-1"',
        "1.5",
        '"1.5"',
        '"0x10"',
        '" 1"',
        '"1 "',
        '""',
        '"+1"',
        '"1_0"',
        "true",
        "[]",
        "{}",
        '"NaN"',
        "1e400",
        '"١"',
    ],
)
def test_wrong_64_bit_numbers_are_400(target: Target, text: str) -> None:
    """What is no unsigned 64-bit number is bad data, never rounded or cut."""
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"startTimeUnixNano":{text}}}]}}]}}]}}'
    assert target.post(body.encode(), JSON).code == 400


@pytest.mark.parametrize("text", ["3", '"3"', "3.0", "3e0", "0.3e1"])
def test_32_bit_numbers_are_numbers_or_text(target: Target, text: str) -> None:
    """uint32 and int32 come as a number or as text. (ProtoJSON)"""
    assert number(target, "droppedAttributesCount", text).dropped_attributes_count == 3


@pytest.mark.parametrize("text", ["-1", "4294967296", "1.5", '"x"', "true"])
def test_wrong_32_bit_numbers_are_400(target: Target, text: str) -> None:
    """What is no unsigned 32-bit number is bad data."""
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"droppedAttributesCount":{text}}}]}}]}}]}}'
    assert target.post(body.encode(), JSON).code == 400


@pytest.mark.parametrize("value", [INT64_MIN, -1, 0, 2**63 - 1, str(INT64_MIN), str(2**63 - 1)])
def test_int_values(target: Target, value: Any) -> None:
    """intValue is exact over the whole range, as number or text."""
    kept = taken(target, {"intValue": value})
    assert (kept.WhichOneof("value"), kept.int_value) == ("int_value", int(value))


@pytest.mark.parametrize("value", [1, 1.5, -0.0, 1e300, 5e-324, "1.5", "NaN", "Infinity", "-Infinity", "-1e-7", 10**30])
def test_double_values(target: Target, value: Any) -> None:
    """doubleValue is a number, its text, or NaN, Infinity and -Infinity as text. (ProtoJSON)"""
    kept, want = taken(target, {"doubleValue": value}).double_value, float(value)
    assert (math.isnan(kept) and math.isnan(want)) or (
        kept == want and math.copysign(1, kept) == math.copysign(1, want)
    )


@pytest.mark.parametrize("value", ["nan", "inf", "+Infinity", "INFINITY", "", "1,5", True, [], 10**400])
def test_wrong_doubles_are_400(target: Target, value: Any) -> None:
    """What is no double is bad data."""
    assert target.post(attribute({"doubleValue": value}), JSON).code == 400


@pytest.mark.parametrize("value", ["true", 1, 0, "", []])
def test_a_bool_is_true_or_false(target: Target, value: Any) -> None:
    """boolValue is true or false and nothing else."""
    assert target.post(attribute({"boolValue": value}), JSON).code == 400


BYTES = b"\xfb\xef\xbe\x00\xff\xfe"


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("alphabet", ["standard", "url"])
@pytest.mark.parametrize("padded", [True, False])
def test_bytes_are_base64_of_either_alphabet(target: Target, cut: int, alphabet: str, padded: bool) -> None:
    """bytesValue is base64, standard or URL-safe, padded or not. (ProtoJSON)"""
    encode = base64.b64encode if alphabet == "standard" else base64.urlsafe_b64encode
    text = encode(BYTES[:cut]).decode()
    assert taken(target, {"bytesValue": text if padded else text.rstrip("=")}).bytes_value == BYTES[:cut]


@pytest.mark.parametrize("value", ["a", "abcde", "a=bc", "ab c", "ab\n", "äöü", 1, ["ab"]])
def test_wrong_base64_is_400(target: Target, value: Any) -> None:
    """What is no base64 is bad data."""
    assert target.post(attribute({"bytesValue": value}), JSON).code == 400


def test_null_is_absent(target: Target) -> None:
    """null stands for an absent field, of any type but an id. (ProtoJSON)"""
    fields = ("traceState", "startTimeUnixNano", "kind", "attributes", "events", "status", "droppedAttributesCount")
    span = target.kept_span(span_json(**dict.fromkeys(fields)))
    assert (span.trace_state, span.kind, len(span.attributes), span.HasField("status")) == ("", 0, 0, False)


def test_a_null_value_is_empty(target: Target) -> None:
    """{"value": null} and {"value": {}} are an attribute with an empty value, which is kept."""
    span = target.kept_span(
        span_json(attributes=[{"key": "a", "value": None}, {"key": "b", "value": {}}, {"key": "c"}])
    )
    assert [(a.key, a.value.WhichOneof("value")) for a in span.attributes] == [("a", None), ("b", None), ("c", None)]


def test_a_null_beside_a_value_is_absent(target: Target) -> None:
    """Of a oneof, members that are null do not count."""
    assert taken(target, {"stringValue": None, "intValue": "1"}).int_value == 1


def test_an_empty_text_is_a_value(target: Target) -> None:
    """An empty stringValue is a string, not nothing."""
    assert taken(target, {"stringValue": ""}).WhichOneof("value") == "string_value"


def test_two_members_of_a_oneof_are_400(target: Target) -> None:
    """A value of two kinds is bad data: neither is dropped in silence. (ProtoJSON)"""
    answer = target.post(attribute({"stringValue": "a", "intValue": "1"}), JSON)
    assert answer.code == 400
    assert "value.intValue" in answer.status.message


def test_of_a_key_twice_the_last_counts(target: Target) -> None:
    """Of a key that stands twice in one object the last counts. (RFC 8259 leaves it open; most parsers do so)"""
    name = marker()
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"name":"{name}","kind":1,"kind":2}}]}}]}}]}}'
    assert target.kept_span(body, name).kind == 2


def test_a_byte_order_mark_is_ignored(target: Target) -> None:
    """A UTF-8 byte order mark before the JSON is ignored. (RFC 8259, 8.1: MAY)"""
    assert target.kept_span(b"\xef\xbb\xbf" + span_json())


def test_white_space_around_is_ignored(target: Target) -> None:
    """White space before, between and after is nothing."""
    name = marker()
    body = json.dumps(json.loads(span_json(name=name)), indent=4)
    assert target.kept_span(f" \r\n\t{body}\n\n", name)


@pytest.mark.parametrize("text", ["é", "日本語", "😀", "\u0000", "\u2028", '"\\/', "\x7f", "\ufffd"])
@pytest.mark.parametrize("escaped", [True, False])
def test_every_character_arrives(target: Target, text: str, escaped: bool) -> None:
    """Text arrives as it was, escaped or not, beyond the basic plane too."""
    name = marker() + text
    body = json.dumps(json.loads(span_json(name=name)), ensure_ascii=escaped)
    assert target.kept_span(body.encode(), name).name == name


def test_arrays_and_lists_of_pairs(target: Target) -> None:
    """arrayValue and kvlistValue hold values of every kind, empty ones too."""
    pair = {"key": "p", "value": {"arrayValue": {}}}
    kept = taken(target, {"arrayValue": {"values": [{"intValue": 1}, {}, {"kvlistValue": {"values": [pair]}}]}})
    first, second, third = kept.array_value.values
    assert (first.int_value, second.WhichOneof("value")) == (1, None)
    assert third.kvlist_value.values[0].value.WhichOneof("value") == "array_value"


def test_a_null_in_a_list_is_400(target: Target) -> None:
    """null is no member of a list. (ProtoJSON)"""
    assert target.post(attribute({"arrayValue": {"values": [None]}}), JSON).code == 400


@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponentialHistogram", "summary"])
def test_every_metric_kind(target: Target, kind: str) -> None:
    """All five metric kinds are read from JSON."""
    metric = {"name": (name := marker()), kind: {"dataPoints": [{"timeUnixNano": "5"}]}}
    assert target.post_json({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}, "/v1/metrics").code == 200
    kept = target.kept(name, SIGNALS["metrics"]).resource_metrics[0].scope_metrics[0].metrics[0]
    which = kept.WhichOneof("data")
    assert which.replace("_h", "H") == kind
    assert getattr(kept, which).data_points[0].time_unix_nano == 5


def test_lists_of_64_bit_numbers(target: Target) -> None:
    """Bucket counts come as text or numbers, bounds as numbers or text."""
    point = {"count": "6", "bucketCounts": ["1", 2, "3"], "explicitBounds": [0, "1.5"], "sum": "NaN", "min": 0}
    metric = {"name": (name := marker()), "histogram": {"dataPoints": [point], "aggregationTemporality": 2}}
    target.post_json({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}, "/v1/metrics")
    kept = target.kept(name, SIGNALS["metrics"]).resource_metrics[0].scope_metrics[0].metrics[0].histogram
    found = kept.data_points[0]
    assert (list(found.bucket_counts), list(found.explicit_bounds), found.count) == ([1, 2, 3], [0.0, 1.5], 6)
    assert math.isnan(found.sum)
    assert found.HasField("min")
    assert not found.HasField("max")

"""Redaction: a secret is nowhere in the rows nor in what is forwarded, and nothing else is touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import Decoded, decode, decode_arriving, mend_payload
from hubscope.processors.options import RedactionOptions
from hubscope.processors.redaction import Redaction
from hubscope.processors.secret_patterns import is_secret_key, luhn

ALNUM = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def _of(alphabet: str, size: int, most: int = 0) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=size, max_size=most or size)


# Kind -> (template, secrets): the whole text is the template with the secret at `{}`.
SHAPES: dict[str, tuple[str, st.SearchStrategy[str]]] = {
    "aws_key": ("key {}.", _of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16).map("AKIA".__add__)),
    "azure_secret": ("{}", _of(ALNUM, 31).map("abc8Q~".__add__)),
    "gcp_key": ("?key={}", _of(ALNUM, 35).map("AIza".__add__)),
    "github_token": ("clone {} now", _of(ALNUM, 36).map("ghp_".__add__)),
    "gitlab_token": ("{}", _of(ALNUM, 20).map("glpat-".__add__)),
    "slack_token": ("<{}>", _of("0123456789", 12).map(lambda n: f"xoxb-{n}-{n}-{n}")),
    "stripe_key": ("{}", _of(ALNUM, 24).map("sk_live_".__add__)),
    "anthropic_key": ("{}", _of(ALNUM, 40).map("sk-ant-api03-".__add__)),
    "openai_key": ("x={}", _of(ALNUM, 48).map("sk-proj-".__add__)),
    "jwt": ("got {} back", st.tuples(*[_of(ALNUM, 20)] * 3).map(lambda p: f"eyJ{p[0]}.eyJ{p[1]}.{p[2]}")),
    "private_key": (
        "-----BEGIN RSA PRIVATE KEY-----{}-----END RSA PRIVATE KEY----- x",
        _of(ALNUM, 64, 200),
    ),
    "authorization": ("POST / Authorization: Bearer {}", _of(ALNUM, 20, 60)),
    "bearer": ("curl -H 'Bearer {}'", _of(ALNUM, 19, 60).map("9".__add__)),
    "url_password": ("postgresql://ada:{}@db:5432/hub", _of(ALNUM + "!$&*_-", 8, 20).map("x7".__add__)),
    "assignment": ("Server=db;Password={};Timeout=3", _of(ALNUM + "!$*_-@%", 8, 20).map("x7".__add__)),
    "token_assignment": ("GET /a?b=1&access_token={}&c=2", _of(ALNUM, 12, 40).map("x7".__add__)),
}  # fmt: skip
secrets = st.sampled_from(sorted(SHAPES)).flatmap(
    lambda kind: SHAPES[kind][1].map(lambda secret: (SHAPES[kind][0], secret))
)


def _value(holder: Any) -> None:
    holder.string_value = "plain"


def _spread(message: Any, depth: int = 0) -> None:
    """Fill every text of a message, and one of each kind of attribute, so that there is a place of every sort."""
    for descriptor in message.DESCRIPTOR.fields:
        name = descriptor.name
        if descriptor.message_type is not None:
            if descriptor.message_type.name == "KeyValue":
                holder = getattr(message, name)
                holder.add(key="text", value=AnyValue(string_value="plain"))
                holder.add(key="number", value=AnyValue(int_value=7))
                holder.add(key="raw", value=AnyValue(bytes_value=b"plain"))
                members = [AnyValue(string_value="plain"), AnyValue(string_value="other")]
                holder.add(key="list", value=AnyValue(array_value=ArrayValue(values=members)))
                pair = KeyValue(key="inner", value=AnyValue(string_value="plain"))
                holder.add(key="map", value=AnyValue(kvlist_value=KeyValueList(values=[pair])))
            elif descriptor.message_type.name == "AnyValue":
                getattr(message, name).string_value = "plain"
            elif descriptor.containing_oneof is None and descriptor.message_type.name != "EntityRef":
                repeated = getattr(message, name)
                _spread(repeated.add() if hasattr(repeated, "add") else repeated, depth + 1)
        elif descriptor.type == descriptor.TYPE_STRING and not name.endswith("strindex"):
            setattr(message, name, f"some {name}") if isinstance(getattr(message, name), str) else None


def _request(signal: Signal) -> Any:
    if signal is Signal.TRACES:
        traces = ExportTraceServiceRequest()
        _spread(traces)
        span = traces.resource_spans[0].scope_spans[0].spans[0]
        span.trace_id, span.span_id, span.start_time_unix_nano = b"t" * 16, b"s" * 8, 10**18
        return traces
    if signal is Signal.LOGS:
        logs = ExportLogsServiceRequest()
        _spread(logs)
        return logs
    metrics = ExportMetricsServiceRequest()
    _spread(metrics)
    for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        metric = metrics.resource_metrics[0].scope_metrics[0].metrics.add(name=kind)
        _spread(getattr(metric, kind).data_points.add())
    return metrics


def _places(message: Any) -> Iterator[tuple[Any, str]]:
    """Every (message, field) that holds a text, or bytes of an attribute."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for member in value if hasattr(value, "add") else (value,):
                yield from _places(member)
        elif isinstance(value, str) or descriptor.name == "bytes_value":
            yield message, descriptor.name


def _unmarked(message: Any) -> Any:
    """The message without what redaction says of it."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.name == "attributes":
            for index in reversed(range(len(value))):
                if value[index].key == "hub.redacted":
                    del value[index]
        for member in value if hasattr(value, "add") else (value,):
            _unmarked(member)
    return message


def _redacted(*requests: tuple[Signal, Any], options: RedactionOptions | None = None) -> tuple[Decoded, Redaction]:
    redaction = Redaction(options or RedactionOptions(), b"key")
    records = [Record(signal, request.SerializeToString(), 1) for signal, request in requests]
    return decode_arriving(records, [redaction]), redaction


def _span(**attributes: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="s", trace_id=b"t" * 16, span_id=b"s" * 8)
    for key, text in attributes.items():
        span.attributes.add(key=key.replace("__", "."), value=AnyValue(string_value=text))
    return request


def _attributes(decoded: Decoded) -> dict[str, str]:
    return dict(decoded.tables["otel_traces"].to_pylist()[0]["SpanAttributes"])


@given(planted=secrets, signal=st.sampled_from(Signal), data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_secret_is_nowhere_and_the_rest_is_everywhere(
    planted: tuple[str, str], signal: Signal, data: st.DataObject
) -> None:
    """Wherever a secret stands, no column and no forwarded byte has it, and all else is as it was sent."""
    template, secret = planted
    request, clean = _request(signal), _request(signal)
    without = decode([Record(signal, clean.SerializeToString(), 0)])
    assume(secret not in str([rows.to_pylist() for rows in without.values()]))  # a name of a column, for one
    places = list(_places(request))
    number = data.draw(st.integers(0, len(places) - 1))
    (holder, field), (same, _) = places[number], list(_places(clean))[number]
    as_bytes = field == "bytes_value"
    for message, text in ((holder, template.format(secret)), (same, template.format("****"))):
        setattr(message, field, text.encode() if as_bytes else text)
    other = _request(signal)
    decoded, redaction = _redacted((signal, other), (signal, request), (signal, other))
    assert set(decoded.changed) == {1}
    assert secret.encode() not in decoded.changed[1]
    assert secret not in str([table.to_pylist() for table in decoded.tables.values()])
    kind_of_request = type(request)
    left = _unmarked(kind_of_request.FromString(decoded.changed[1]))
    assert left == clean
    assert sum(redaction.counts().values()) == 1
    again, _ = _redacted((signal, kind_of_request.FromString(decoded.changed[1])))
    assert not again.changed  # nothing is left to do


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_columns_and_messages_agree(data: st.DataObject) -> None:
    """What the columns point at is what a look at the whole message would have changed."""
    template, secret = data.draw(secrets)
    signal = data.draw(st.sampled_from(Signal))
    request = _request(signal)
    holder, field = data.draw(st.sampled_from(list(_places(request))))
    text = template.format(secret)
    setattr(holder, field, text.encode() if field == "bytes_value" else text)
    decoded, _ = _redacted((signal, request))
    assert decoded.changed[0] == mend_payload(
        signal, request.SerializeToString(), [Redaction(RedactionOptions(), b"key")]
    )


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_holds_no_secret_keeps_its_bytes(texts: list[str]) -> None:
    """Without a secret nothing is parsed nor written anew, and the rows are those that decoding alone gives."""
    request = _span(**{f"a{number}": text for number, text in enumerate(texts)})
    redaction = Redaction(RedactionOptions(), b"key")
    record = Record(Signal.TRACES, request.SerializeToString(), 1)
    decoded = decode_arriving([record], [redaction])
    if not redaction.counts():
        assert not decoded.changed
        assert decoded.tables["otel_traces"].equals(decode([record])["otel_traces"])


@pytest.mark.parametrize(
    "key",
    [
        "password", "db.password", "userPassword", "PASSWORD", "client_secret", "http.request.header.authorization",
        "http.request.header.cookie", "http.response.header.set-cookie", "x-api-key", "apiKey", "API_KEY",
        "access_token", "aws.secret_access_key", "connection_string", "credentials", "private-key",
    ],
)  # fmt: skip
def test_the_value_under_a_secret_key_is_a_secret(key: str) -> None:
    """Whatever form it has: text, number, list or map."""
    assert is_secret_key(key)
    request = _span()
    attributes = request.resource_spans[0].scope_spans[0].spans[0].attributes
    attributes.add(key=key, value=AnyValue(int_value=123_456))
    nested = KeyValueList(values=[KeyValue(key=key, value=AnyValue(string_value="hunter2"))])
    attributes.add(key="settings", value=AnyValue(kvlist_value=nested))
    decoded, redaction = _redacted((Signal.TRACES, request))
    assert _attributes(decoded)[key] == "****"
    assert "hunter2" not in str(decoded.tables["otel_traces"].to_pylist())
    assert _attributes(decoded)["hub.redacted"] == f'["{key}","settings.{key}"]'
    assert redaction.counts() == {"key": 2}


@pytest.mark.parametrize(
    "key",
    [
        "gen_ai.usage.input_tokens", "gen_ai.token.type", "token_count", "monkey", "hub.cache.key", "session.id",
        "password_length", "author", "db.query.text", "keyboard", "messaging.kafka.message.key", "secretary",
    ],
)  # fmt: skip
def test_keys_that_only_sound_alike_are_left(key: str) -> None:
    """The conventions' own attributes about tokens and keys hold no secrets."""
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM users WHERE password = ? AND token = $1 AND secret = :secret",
        "UPDATE users SET password = %s", "max_tokens=100", "Basic authentication failed", "Bearer token missing",
        "https://example.org:8080/a@b", "postgresql://ada@db/hub", "password: ****", "sk-learn", "a://b:80/d@e",
        "INSERT INTO keys (api_key) VALUES (?)", "eyJust a word", "http://[::1]:4318/v1/traces", "tokens: 12345678",
    ],
)  # fmt: skip
def test_texts_without_a_secret_are_left(text: str) -> None:
    """Statements with places for values, prose and plain URLs stay as they are, byte for byte."""
    decoded, redaction = _redacted((Signal.TRACES, _span(text=text)))
    assert (decoded.changed, redaction.counts()) == ({}, {})


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"user":"ada","password":"hun,ter 2"}', '{"user":"ada","password":"****"}'),
        ('{"a":"{\\"password\\":\\"hunter2\\"}"}', '{"a":"{\\"password\\":\\"****\\"}"}'),
        ("connect(password=hunter2)", "connect(password=****)"),
        ("redis://:hunter2@cache:6379/0", "redis://:****@cache:6379/0"),
        ("mysql://a:p@ss@h/db", "mysql://a:****@h/db"),
        ("Cookie: a=1; session=abc", "Cookie: ****"),
        ("CREATE USER a IDENTIFIED BY 'hunter2'", "CREATE USER a IDENTIFIED BY '****'"),
        ("PASSWORD=$ecret!1", "PASSWORD=****"),
        ("authorization=Basic YWRhOmh1bnRlcjI=", "authorization=Basic ****"),
    ],
)
def test_only_the_secret_is_replaced(text: str, left: str) -> None:
    """What stands around it is what makes the text readable."""
    decoded, _ = _redacted((Signal.TRACES, _span(text=text)))
    assert _attributes(decoded)["text"] == left


def test_what_is_told_can_be_set() -> None:
    """More keys, more patterns, what is allowed, cards, hashes, and dropping."""
    key = "AKIAIOSFODNN7EXAMPLE"
    request = _span(text=f"{key} and acme-1234", acme__tan="99", free=key, card="4111 1111 1111 1111")
    plain, _ = _redacted((Signal.TRACES, request))
    assert _attributes(plain)["text"] == "**** and acme-1234"
    assert _attributes(plain)["card"] == "4111 1111 1111 1111"
    options = RedactionOptions(
        keys=("ACME.*",), patterns=("acme-[0-9]+",), allowed=("AKIA.*EXAMPLE",), allowed_keys=("free",), cards=True
    )
    told, redaction = _redacted((Signal.TRACES, request), options=options)
    assert _attributes(told) == {
        "text": f"{key} and ****", "acme.tan": "****", "free": key, "card": "****",
        "hub.redacted": '["text","acme.tan","card"]',
    }  # fmt: skip
    assert redaction.counts() == {"key": 1, "custom": 1, "card": 1}
    hashed = [_attributes(_redacted((Signal.TRACES, request), options=RedactionOptions(action="hash"))[0])] * 2
    assert re.fullmatch("hash:[a-z2-7]{16} and acme-1234", hashed[0]["text"])
    assert hashed[0] == hashed[1]
    assert hashed[0]["free"] == hashed[0]["text"].split()[0]
    dropped, _ = _redacted((Signal.TRACES, request), options=RedactionOptions(action="drop"))
    assert _attributes(dropped) == {"acme.tan": "99", "card": "4111 1111 1111 1111", "hub.redacted": '["text","free"]'}
    assert dropped.tables["otel_traces"]["DroppedAttributesCount"].to_pylist() == [2]


def test_a_pattern_with_anchors_is_found() -> None:
    """`^` and `$` are the beginning and the end of a value, though values are looked at end to end."""
    options = RedactionOptions(patterns=("^pin-[0-9]+$",))
    decoded, _ = _redacted((Signal.TRACES, _span(a="x", b="pin-1", c="a pin-1")), options=options)
    assert _attributes(decoded) == {"a": "x", "b": "****", "c": "a pin-1", "hub.redacted": '["b"]'}


@pytest.mark.parametrize("where", ["patterns", "allowed"])
def test_no_pattern_of_the_owner_takes_long(where: str) -> None:
    """What makes Python try every way to match is matched in a time that is linear in the text."""
    options = RedactionOptions(**{"patterns": ("((?:a+)+b)$",), where: ("((?:a+)+b)$",)})
    redaction = Redaction(options, b"k" * 32)
    text, secret = "a" * 100_000 + "!", "a" * 100_000 + "b"
    assert redaction._scrubbed(text) == (text, ())
    assert redaction._scrubbed(secret)[0] == ("****" if where == "patterns" else secret)


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        (r"id=\d+ key=(\d+)", "é id=5 key=5 x id=7 key=88.", "é id=**** key=**** x id=7 key=****."),  # which 5 it was
        (r"(?:a=(\w+)|b=(\w+))", "b=one a=two c=three", "b=**** a=**** c=three"),
        (r"(z)+!", "zzz! zz", "****! zz"),
        (r"\bacme-\w+", "acme-x1 xacme-y1\ue000 acme-é", "**** xacme-y1\ue000 acme-é"),
    ],
)
def test_a_pattern_of_the_owner_hides_its_group(pattern: str, text: str, left: str) -> None:
    """The first group that holds something is the secret, or else the whole match; nothing else changes."""
    assert Redaction(RedactionOptions(patterns=(pattern,)), b"k" * 32)._scrubbed(text)[0] == left


def test_a_metric_point_is_not_marked() -> None:
    """A point with another attribute would be another series; it is counted all the same."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add(as_int=1).attributes.add(key="password", value=AnyValue(string_value="hunter2"))
    decoded, redaction = _redacted((Signal.METRICS, request))
    assert decoded.tables["otel_metrics_gauge"]["Attributes"].to_pylist() == [[("password", "****")]]
    assert redaction.counts() == {"key": 1}


def test_no_text_takes_long() -> None:
    """A megabyte made to be slow for the expressions is done within seconds."""
    redaction = Redaction(RedactionOptions(cards=True, patterns=("acme-[0-9]+",)), b"key")
    for piece in ("eyJ", "eyJ-", "eyJaaaaaaaa.", "://", "://a:", "password=", "pwd=)", "-----BEGIN PRIVATE KEY-----",
                  "4111 ", "Cookie:", "Bearer ", "sk-", "xox", "a", "authorization: "):  # fmt: skip
        redaction._scrubbed(piece * (1_000_000 // len(piece)))


@given(st.integers(10**12, 10**19 - 1))
def test_a_check_digit_is_right_for_one_digit_of_ten(number: int) -> None:
    """Of the ten last digits a number may have, exactly one is right (all digits alike never is)."""
    right = [digit for digit in range(10) if luhn(f"{number // 10}{digit}")]
    assert len(right) == (0 if len(set(str(number // 10))) == 1 and right == [] else 1)

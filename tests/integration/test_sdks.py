"""OpenTelemetry SDKs of other languages send to a real collector; every field they send is found in the lake.

The senders are js_sdk/send.mjs and go_sdk/. Both send the same contents as far as their SDKs can, and rows are compared
whole: a column that is not expected below, or differs, fails. What one SDK cannot send: JavaScript has no scope
attributes on traces and metrics, no exemplars, no summaries, and only flat attributes on spans; Go encodes traces as
JSON, metrics and logs as protobuf only (with http/json it sends those as protobuf).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hubscope import lake_schema
from hubscope.semconv import HOT_COLUMNS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

HERE = Path(__file__).parent
SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
SCOPE = "hubscope.sdk-test"
Row = dict[str, Any]
Differences = Callable[[str, Any, Any], list[str]]


@pytest.fixture(scope="session")
def sender(tool: Callable[[str], str], go_build: Callable[..., Path]) -> Callable[[str], list[str]]:
    """`sender(language)`: the command of that language's sender, its packages installed and itself built."""

    def command(language: str) -> list[str]:
        if language == "go":
            return [str(go_build(HERE / "go_sdk", ".", "sdk"))]
        folder, npm = HERE / "js_sdk", tool("npm")
        installed, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True
            )
            assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
        return [tool("node"), str(folder / "send.mjs")]

    return command


@pytest.mark.parametrize(
    ("language", "protocol", "temporality"),
    [
        ("js", "grpc", "delta"),
        ("js", "http/protobuf", "cumulative"),
        ("js", "http/json", "delta"),
        ("go", "grpc", "cumulative"),
        ("go", "http/protobuf", "delta"),
        ("go", "http/json", "cumulative"),
    ],
)
def test_every_field_an_sdk_sends_is_in_the_lake(
    language: str,
    protocol: str,
    temporality: str,
    sender: Callable[[str], list[str]],
    collector: Any,
    lake_rows: Callable[..., list[Row]],
    decoded: Callable[[Row], Row],
    differences: Differences,
) -> None:
    """Spans, points of every metric kind, and log records arrive with all their fields, once each."""
    run_id = os.urandom(16).hex()
    base_s = int(time.time()) - 60
    endpoint = collector.grpc if protocol == "grpc" else collector.http
    begun_ns = time.time_ns()
    done = subprocess.run(
        [*sender(language), protocol, endpoint, run_id, str(base_s), temporality],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{done.stderr}\nthe collector said:\n{collector.output.read_text()}"
    ended_ns = time.time_ns()
    span_ids: dict[str, str] = json.loads(done.stdout)["span_ids"]

    expected = {
        lake_schema.TRACES: list(_spans(language, run_id, base_s, span_ids)),
        lake_schema.LOGS: list(_logs(language, run_id, base_s, span_ids["root"])),
        **_points(language, run_id, base_s, span_ids["root"], 1 if temporality == "delta" else 2),
    }
    problems: list[str] = []
    for table, rows in expected.items():
        found = lake_rows(collector, table, len(rows), ServiceInstanceId=run_id, ScopeName=SCOPE)
        plain = [decoded(row) for row in found]
        if table not in (lake_schema.TRACES, lake_schema.LOGS, lake_schema.SUMMARY):
            problems += _sdk_clock(table, plain, begun_ns, ended_ns)
        problems += _compared(table, plain, rows, differences)
    assert not problems, "\n".join(problems)


# What is expected: one dict a row with every column of the lake's schema, attribute maps decoded.


def _at(base_s: int, nanos: int) -> Row:
    """A time as its two columns hold it: exact, and in microseconds."""
    exact = base_s * 1_000_000_000 + nanos
    return {"exact": exact, "micros": datetime.fromtimestamp(0, UTC) + timedelta(microseconds=exact // 1000)}


def _day(base_s: int, nanos: int = 0) -> date:
    day: date = _at(base_s, nanos)["micros"].date()
    return day


def _common(language: str, run_id: str, scope_attributes: bool) -> Row:
    return {
        **dict.fromkeys(HOT_COLUMNS.values()),
        "ServiceVersion": "1.2.3",
        "ServiceInstanceId": run_id,
        "ServiceName": f"sdk-{language}",
        "ResourceAttributes": {
            "service.name": f"sdk-{language}",
            "service.version": "1.2.3",
            "service.instance.id": run_id,
            "res.bool": True,
            "res.int": 9007199254740991,
            "res.double": 0.1,
            "res.strings": ["a", "b"],
        },
        "ResourceDroppedAttributesCount": 0,
        "ResourceSchemaUrl": SCHEMA_URL,
        "ScopeName": SCOPE,
        "ScopeVersion": "4.5.6",
        "ScopeAttributes": {"scope.key": "scope value", "scope.n": 7} if scope_attributes else {},
        "ScopeDroppedAttrCount": 0,
        "ScopeSchemaUrl": SCHEMA_URL,
    }


def _link(language: str, attributes: Row, dropped: int) -> Row:
    return {
        "TraceId": "0af7651916cd43dd8448eb211c80319c",
        "SpanId": "b7ad6b7169203331",
        "TraceState": "linked=yes" if language == "js" else "",  # Go's exporter leaves a link's trace state out
        "Attributes": attributes,
        "DroppedAttributesCount": dropped,
        "Flags": 0x301,  # sampled; the context is known to be remote
    }


def _event(base_s: int, nanos: int, name: str, attributes: Row, dropped: int = 0) -> Row:
    time_ = _at(base_s, nanos)
    return {
        "Timestamp": time_["micros"],
        "TimestampUnixNano": time_["exact"],
        "Name": name,
        "Attributes": attributes,
        "DroppedAttributesCount": dropped,
    }


def _spans(language: str, run_id: str, base_s: int, span_ids: dict[str, str]) -> Iterable[Row]:
    def span(name: str, kind: str, start: int, end: int, parent: str, **other: Any) -> Row:
        begun = _at(base_s, start)
        return {
            **_common(language, run_id, scope_attributes=language == "go"),
            "Date": _day(base_s, start),
            "Timestamp": begun["micros"],
            "TimestampUnixNano": begun["exact"],
            "TraceId": run_id,
            "SpanId": span_ids[name],
            "ParentSpanId": parent,
            "TraceState": "vendor=state,other=1",
            "SpanName": name,
            "SpanKind": kind,
            "SpanAttributes": {},
            "Duration": end - start,
            "StatusCode": "Unset",
            "StatusMessage": "",
            "Events": [],
            "Links": [],
            "TraceFlags": 0x101,  # sampled; the parent is known to be local
            "DroppedAttributesCount": 0,
            "DroppedEventsCount": 0,
            "DroppedLinksCount": 0,
            **other,
        }

    attributes: Row = {
        "string": "text é € 𝄞",
        "string.empty": "",
        "int": 42,
        "int.negative": -7,
        "int.max": 9007199254740991,
        "double": 0.25,
        "double.tiny": 5e-324,
        "true": True,
        "false": False,
        "strings": ["x", "", "z"],
        "ints": [1, -2, 3],
        "doubles": [0.5, -1.25],
        "bools": [True, False],
        "array.empty": [],
    }
    if language == "go":
        attributes |= {
            "int.max": 9223372036854775807,
            "double.whole": 3.0,
            "bytes": b"\x00\x01\xfe\xff",
            "mixed": ["mixed", 1, True],
            "map": {"inner": {"deep": [1, 2]}, "s": "x"},
        }
    yield span(
        "root",
        "Server",
        123,
        1_500_000_912,
        "00f067aa0ba902b7",
        SpanName="root ünïcode €",
        TraceFlags=0x301,  # sampled; the parent is known to be remote
        SpanAttributes=attributes,
        StatusCode="Error",
        StatusMessage="it failed: naïvely",
        Events=[
            _event(base_s, 1_000_000_001, "first", {"n": 1, "s": "x", "b": True}),
            _event(base_s, 1_000_000_002, "second", {}),
        ],
        Links=[_link(language, {"link.n": 1, "link.s": "why"}, 0)],
    )
    yield span("internal", "Internal", 2_000, 3_000, span_ids["root"])
    yield span("client", "Client", 2_000, 3_000, span_ids["root"], StatusCode="Ok")
    yield span("producer", "Producer", 2_000, 3_000, span_ids["root"])
    yield span("consumer", "Consumer", 2_000, 3_000, span_ids["root"])
    yield span(
        "limited",
        "Internal",
        5_000,
        7_000,
        span_ids["root"],
        SpanAttributes={f"a{i:02}": i for i in range(20)},
        DroppedAttributesCount=4,
        Events=[_event(base_s, 6_000 + i, f"event {i}", {"a": 1, "b": 2, "c": 3}, dropped=2) for i in (3, 4)],
        DroppedEventsCount=3,
        Links=[_link(language, {"a": 1, "b": 2}, 1)],
        DroppedLinksCount=2,
    )


def _logs(language: str, run_id: str, base_s: int, root_id: str) -> Iterable[Row]:
    def record(time_ns: int, observed_ns: int, body: Any, **other: Any) -> Row:
        emitted = _at(base_s, time_ns)
        return {
            **_common(language, run_id, scope_attributes=True),
            "Date": _day(base_s, time_ns),
            "Timestamp": emitted["micros"],
            "TimestampUnixNano": emitted["exact"],
            "ObservedTimestampUnixNano": _at(base_s, observed_ns)["exact"],
            "TraceId": "",
            "SpanId": "",
            "TraceFlags": 0,
            "SeverityText": "",
            "SeverityNumber": 0,
            "Body": body,
            "LogAttributes": {},
            "EventName": "",
            "DroppedAttributesCount": 0,
            **other,
        }

    yield record(
        11,
        22,
        "plain text é € 𝄞",
        EventName="sdk.event",
        TraceId=run_id,
        SpanId=root_id,
        TraceFlags=1,
        SeverityText="WARN",
        SeverityNumber=13,
        LogAttributes={
            "string": "text",
            "int": -5,
            "double": 2.5,
            "bool": True,
            "bytes": b"\x00\x01\xfe\xff",
            "array": ["mixed", 1, 0.5, True],
            "map": {"inner": {"deep": [1, 2]}, "s": "x"},
        },
    )
    yield record(
        33,
        44,
        {"code": 7, "nested": {"list": ["a", True], "none": None}},
        SeverityText="FATAL-ish",
        SeverityNumber=20,
        LogAttributes={f"a{i}": i for i in range(8)},
        DroppedAttributesCount=2,
    )
    yield record(55, 66, b"\xde\xad\xbe\xef")


def _points(language: str, run_id: str, base_s: int, root_id: str, temporality: int) -> dict[str, list[Row]]:
    labels = {"kind": "a", "n": 1, "ratio": 0.5, "flag": True}

    def exemplars(*values: float, filtered: Row | None = None) -> list[Row]:
        """What Go attaches to points recorded inside a sampled span; the SDK's clock gives the time."""
        if language != "go":
            return []
        return [
            {
                "FilteredAttributes": filtered or {},
                "Value": float(value),
                "ValueInt": value if isinstance(value, int) else None,
                "SpanId": root_id,
                "TraceId": run_id,
            }
            for value in values
        ]

    def point(name: str, description: str, unit: str, **other: Any) -> Row:
        return {
            **_common(language, run_id, scope_attributes=language == "go"),
            "MetricName": name,
            "MetricDescription": description,
            "MetricUnit": unit,
            "MetricMetadata": {},
            "Attributes": labels,
            "Flags": 0,
            **other,
        }

    def number(value: float) -> Row:
        return {"Value": float(value), "ValueInt": value if isinstance(value, int) else None}

    def total(*values: float, monotonic: bool = True) -> Row:
        return {
            **number(sum(values)),
            "Exemplars": exemplars(*values),
            # Both SDKs keep up-down counters cumulative even where delta is preferred, as the specification says.
            "AggregationTemporality": temporality if monotonic else 2,
            "IsMonotonic": monotonic,
        }

    def distribution(values: list[float], exemplified: list[float], filtered: Row | None = None) -> Row:
        return {
            "Count": len(values),
            "Sum": sum(values),
            "Min": min(values),
            "Max": max(values),
            "Exemplars": exemplars(*exemplified, filtered=filtered),
            "AggregationTemporality": temporality,
        }

    latencies, signed = [0.0, 0.001, 0.002, 0.004], [-2.0, -1.0, 4.0]
    exponential = [
        point("sent.latency", "Latencies", "s", **distribution(latencies, latencies), **_exponential(latencies, 6))
    ]
    if language == "go":
        exponential.append(
            point("sent.signed", "", "1", **distribution(signed, signed), **_exponential(signed, 7, negative=True))
        )
    sizes = [0.5, 5.0, 50.0, 500.0]
    tables: dict[str, list[Row]] = {
        lake_schema.SUM: [
            point("sent.items", "Items sent", "{item}", **total(3, 4)),
            point("sent.items", "Items sent", "{item}", **total(1), Attributes={"kind": "b"}),
            point("sent.seconds", "Time spent", "s", **total(0.5)),
            point("sent.balance", "", "{item}", **total(5, -7, monotonic=False)),
        ],
        lake_schema.GAUGE: [
            point("sent.level", "", "Cel", **number(20.5), Exemplars=exemplars(20.5)),
            point("sent.depth", "", "m", **number(-12), Exemplars=exemplars(-12)),
            point("sent.observed", "", "1", **number(0.75), Exemplars=[]),  # observed outside any span
        ],
        lake_schema.HISTOGRAM: [
            point(
                "sent.size",
                "Sizes",
                "By",
                **distribution(sizes, sizes, {"request": 77}),
                BucketCounts=[1, 1, 1, 1],
                ExplicitBounds=[1.0, 10.0, 100.0],
            )
        ],
        lake_schema.EXPONENTIAL_HISTOGRAM: exponential,
    }
    if language == "go":
        begun, ended = _at(base_s, 0), _at(base_s, 1_000_000_007)
        summary = point(
            "sent.summary",
            "Quantiles",
            "ms",
            Date=_day(base_s, 1_000_000_007),
            StartTimeUnix=begun["micros"],
            StartTimeUnixNano=begun["exact"],
            TimeUnix=ended["micros"],
            TimeUnixNano=ended["exact"],
            Attributes={"kind": "a"},
            ScopeAttributes={},
            Count=9,
            Sum=99.5,
            ValueAtQuantiles=[{"Quantile": 0.5, "Value": 10.0}, {"Quantile": 0.99, "Value": 20.25}],
        )
        tables[lake_schema.SUMMARY] = [summary]
    return tables


def _exponential(values: list[float], scale: int, negative: bool = False) -> Row:
    """The buckets of these values, by the data model: bucket i holds (base^i, base^(i+1)], base is 2^(2^-scale)."""

    def side(magnitudes: list[float]) -> tuple[int, list[int]]:
        if not magnitudes:
            return 0, []
        indices = [math.ceil(math.log2(m) * 2**scale) - 1 for m in magnitudes]
        return min(indices), [indices.count(i) for i in range(min(indices), max(indices) + 1)]

    positive_offset, positive = side([v for v in values if v > 0])
    negative_offset, negatives = side([-v for v in values if v < 0])
    return {
        "Scale": scale,
        "ZeroCount": values.count(0.0),
        "ZeroThreshold": 0.0,
        "PositiveOffset": positive_offset,
        "PositiveBucketCounts": positive,
        "NegativeOffset": negative_offset,
        "NegativeBucketCounts": negatives,
    }


# How rows are compared.


def _sdk_clock(table: str, rows: list[Row], begun_ns: int, ended_ns: int) -> list[str]:
    """Checks the times that the SDK took from its own clock, and takes them out of the rows."""
    problems = []
    # The clock of the JavaScript SDK counts from the process's start and was read in milliseconds.
    earliest, latest = begun_ns - 50_000_000, ended_ns + 50_000_000
    for row in rows:
        name = f"{table} {row['MetricName']}"
        start, end = row.pop("StartTimeUnixNano"), row.pop("TimeUnixNano")
        if not earliest <= start <= end <= latest:
            problems.append(f"{name}: times {start} and {end} do not lie within the run, {begun_ns} to {ended_ns}")
        for column, exact in (("StartTimeUnix", start), ("TimeUnix", end)):
            micros = row.pop(column)
            if micros != _at(0, exact)["micros"]:
                problems.append(f"{name}: {column} is {micros}, not the microseconds of {exact}")
        if row.pop("Date") != _day(0, end):
            problems.append(f"{name}: Date is not the UTC day of {end}")
        for exemplar in row["Exemplars"]:
            taken = exemplar.pop("TimeUnixNano")
            if not earliest <= taken <= latest or exemplar.pop("TimeUnix") != _at(0, taken)["micros"]:
                problems.append(f"{name}: an exemplar at {taken} does not lie within the run")
        row["Exemplars"].sort(key=lambda exemplar: exemplar["Value"])
    return problems


def _key(row: Row) -> tuple[str, ...]:
    """Brings rows of both sides into one order."""
    names = (str(row.get(column)) for column in ("SpanId", "SeverityNumber", "MetricName"))
    return (*names, str(row.get("Attributes")))


def _compared(table: str, found: list[Row], expected: list[Row], differences: Differences) -> list[str]:
    if len(found) != len(expected):
        return [f"{table}: {len(expected)} rows were sent, {len(found)} are there"]
    problems = []
    for actual, wanted in zip(sorted(found, key=_key), sorted(expected, key=_key), strict=True):
        if "Exemplars" in wanted:
            wanted["Exemplars"].sort(key=lambda exemplar: exemplar["Value"])
        name = wanted.get("MetricName") or wanted.get("SpanName") or repr(wanted.get("Body"))
        problems += differences(f"{table} {name}", actual, wanted)
    return problems

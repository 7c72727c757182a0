"""Rollups per minute: what they add up to, how exact their percentiles are, and that their number is bounded."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope import semconv
from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.lake_rollup import BUCKETS_PER_DOUBLING, LOWEST_BUCKET, MINUTE_NS, OTHER, bucket_of, merged, roll
from hubscope.lake_schema import GAUGE, ROLLUP, ROLLUP_KEYS, SCHEMAS
from hubscope.processors import rows as lake_rows
from hubscope.processors import sketch
from hubscope.processors.batch import Batch
from hubscope.processors.rollup import Rollup
from hubscope.processors.windows import Subject

MINUTE = 28_800_000  # minutes since 1970: 2024-10-04 00:00


def batch(*spans: tuple[str, float, int], status: int = 0) -> Batch:
    """Spans of (name, duration in s, minute after the first)."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (("service.name", "hub"), ("service.version", "1"), ("service.instance.id", "run")):
        group.resource.attributes.add(key=key).value.string_value = value
    scope = group.scope_spans.add()
    for name, duration_s, minute in spans:
        start_ns = (MINUTE + minute) * MINUTE_NS + 1
        span = scope.spans.add(name=name, kind=2, start_time_unix_nano=start_ns)
        span.end_time_unix_nano = start_ns + round(duration_s * 1e9)
        span.status.code = status
        span.attributes.add(key="hub.plugin.id").value.string_value = f"plugin of {name}"
    return Batch(1, 1, decode([Record(Signal.TRACES, request.SerializeToString(), 1)]))


def rolled(given: Batch) -> list[dict[str, Any]]:
    derived = Rollup()(given).derived.get(ROLLUP)
    return derived.to_pylist() if derived is not None else []


def quantile(row: dict[str, Any], q: float) -> float:
    seen = 0
    for bucket, count in zip(row["BucketIndexes"], row["BucketCounts"], strict=True):
        seen += count
        if seen >= q * row["Count"]:
            return float(min(max(sketch.middle_of(bucket), row["Min"]), row["Max"]))
    raise AssertionError


def test_a_series_and_minute_is_a_row() -> None:
    """Spans of one name and minute are one row with their number, errors, sum and extremes; another minute another."""
    found = rolled(batch(("a", 1.0, 0), ("a", 3.0, 0), ("b", 1.0, 0), ("a", 1.0, 1)))
    rows = {(row["SpanName"], row["TimeUnixNano"] // MINUTE_NS - MINUTE): row for row in found}
    assert len(rows) == len(found) == 3
    row = rows["a", 0]
    assert (row["Count"], row["ErrorCount"], row["Sum"], row["Min"], row["Max"]) == (2, 0, 4.0, 1.0, 3.0)
    assert (row["ServiceName"], row["ServiceVersion"], row["ServiceInstanceId"]) == ("hub", "1", "run")
    assert (row["SpanKind"], row["PluginId"], row["DbQuerySummary"]) == ("Server", "plugin of a", None)
    assert row["Date"].isoformat() == "2024-10-04"
    assert row["TimeUnix"].isoformat() == "2024-10-04T00:00:00+00:00"
    assert rolled(batch(("a", 1.0, 0), status=2))[0]["ErrorCount"] == 1


@given(st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(deadline=None, max_examples=60)
def test_percentiles_are_within_the_buckets_width(durations_s: list[float], q: float) -> None:
    """A percentile of the rollup is off by half a bucket at most, 1.1 %, from the exact one of the same rank."""
    values = pa.array([round(d * 1e9) / 1e9 for d in durations_s], pa.float64())
    (row,) = rolled(batch(*(("a", d, 0) for d in durations_s)))
    exact = sorted(values.to_pylist())[math.ceil(q * len(durations_s)) - 1]
    assert quantile(row, q) == pytest.approx(exact, rel=2 ** (0.5 / BUCKETS_PER_DOUBLING) - 1 + 1e-9)


@given(st.floats(1e-9, 1e9) | st.sampled_from([2.0**n for n in range(-30, 30)]))
def test_buckets_are_the_sketches(value: float) -> None:
    """A value is in the bucket that the KPI sketches put it in, so that they may be added."""
    assert bucket_of(pa.array([value])).to_pylist() == [sketch.bucket_of(value)]
    assert bucket_of(pa.array([0.0, -value])).to_pylist() == [LOWEST_BUCKET] * 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100), st.integers(0, 2)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
@example([("a", 0.0, 2), ("b", 0.0, 2), ("c", 1.0, 0)])  # whose groups Arrow gives in another order
def test_merging_parts_is_rolling_up_the_whole(spans: list[tuple[str, float, int]]) -> None:
    """However spans were cut into segments, and however often rows are merged, counts and buckets are the same."""
    whole = rolled(batch(*spans))
    parts = [Rollup()(batch(span)).derived[ROLLUP].drop_columns(["Date"]) for span in spans]
    once = merged(pa.concat_tables(parts).combine_chunks())
    twice = merged(pa.concat_tables([merged(p) for p in parts]).combine_chunks())
    order = [("TimeUnixNano", "ascending"), ("SpanName", "ascending")]
    for found in (once, twice):
        assert found.schema.equals(pa.schema([f for f in SCHEMAS[ROLLUP] if f.name != "Date"]))
        rows = found.sort_by(order).to_pylist()
        expected = sorted(whole, key=lambda row: (row["TimeUnixNano"], row["SpanName"]))
        for row, wanted in zip(rows, expected, strict=True):
            assert row["Sum"] == pytest.approx(wanted["Sum"])
            assert {k: v for k, v in row.items() if k != "Sum"} == {
                k: v for k, v in wanted.items() if k not in ("Sum", "Date")
            }


def test_dictionaries_are_merged_as_texts_are() -> None:
    """Merges read texts as dictionaries; the rows are the same."""
    rows = Rollup()(batch(("a", 1.0, 0), ("b", 2.0, 0))).derived[ROLLUP].drop_columns(["Date"])
    encoded = rows
    for name in ROLLUP_KEYS:
        encoded = encoded.set_column(encoded.column_names.index(name), name, encoded[name].dictionary_encode())
    assert merged(encoded.combine_chunks()).equals(merged(rows.combine_chunks()))


def test_names_that_hold_ids_do_not_grow_it() -> None:
    """Of more series than the bound those with the most spans stay; the others are one row, and no span is missing."""
    names = [(f"GET /memory/{n}", 1.0, 0) for n in range(50)] + [("GET /", 0.5, 0)] * 20
    given = batch(*names)
    spans = given.tables["otel_traces"]
    keys = {name: spans[name].combine_chunks() for name in ("ServiceName", "SpanName")}
    ones = pa.array([1] * len(names), pa.int64())
    seconds = pa.array([1.0] * len(names))
    values = {"minute": pa.array([MINUTE * MINUTE_NS] * len(names), pa.int64()), "bucket": bucket_of(seconds)}
    values |= {"count": ones, "errors": ones, "total": seconds, "low": seconds, "high": seconds}
    found = roll(keys, values, max_series=10).to_pylist()
    counts = {row["SpanName"]: row["Count"] for row in found}
    assert len(found) == 11
    assert counts["GET /"] == 20
    assert counts[OTHER] == 50 - 9
    assert sum(counts.values()) == len(names)
    assert {row["ServiceName"] for row in found} == {"hub"}


def test_kpi_values_are_rolled_up_too() -> None:
    """The KPI points that were derived before become rows of their KPI; values that missed the target are counted."""
    subject = Subject("hub", "1")

    def point(value: float, status: str) -> dict[str, Any]:
        attributes = {semconv.HUB_KPI_NAME: "search.p95", semconv.HUB_KPI_STATUS: status}
        at_ns = MINUTE * MINUTE_NS + 5
        return lake_rows.gauge(
            semconv.METRIC_KPI, "s", "hub", lake_rows.resource_of(subject), attributes, at_ns, at_ns, value
        )

    points = lake_rows.table(GAUGE, [point(1.0, "pass"), point(3.0, "fail")])
    (row,) = rolled(Batch(1, 1).with_derived(GAUGE, points))
    assert (row["MetricName"], row["KpiName"], row["SpanName"]) == ("hub.kpi.value", "search.p95", None)
    assert (row["Count"], row["ErrorCount"], row["Sum"], row["Max"]) == (2, 1, 4.0, 3.0)


def test_a_replay_gives_the_same_rows() -> None:
    """The processor has no memory: the same batch gives equal rows at any time; a batch of neither gives none."""
    given = batch(("a", 0.1, 0), ("b", 0.2, 0), ("a", 0.3, 0))
    processor = Rollup()
    first = processor(given).derived[ROLLUP]
    processor(batch(("c", 1.0, 0)))
    assert processor(given).derived[ROLLUP].equals(first)
    assert rolled(Batch(1, 1)) == []

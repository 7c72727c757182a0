"""The tables in ClickHouse: those that the OpenTelemetry Collector's ClickHouse exporter makes, so that what reads its
tables reads ours, and both may write the same ones.

Names, types and their order are that exporter's, version 0.161 (`tests/integration/test_clickhouse_stock.py` compares
them with its own statements, run in the same engine). Two things differ: times of metrics keep their nanoseconds,
which are whole seconds there, and a table remembers the tokens of its last inserts
(`non_replicated_deduplication_window`), which is what makes an insert that is repeated after a crash count once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, LOGS, SUM, SUMMARY, TRACES

# Two segments a second: a repetition comes within seconds, or after a restart of minutes; this is a quarter of an hour.
REMEMBERED_INSERTS: Final = 2000

_TEXT: Final = "String"
_WORD: Final = "LowCardinality(String)"
_MAP: Final = "Map(LowCardinality(String), String)"
_NANOSECONDS: Final = "DateTime64(9)"

Columns = tuple[tuple[str, str], ...]

_POINT: Final[Columns] = (
    ("ResourceAttributes", _MAP),
    ("ResourceSchemaUrl", _TEXT),
    ("ScopeName", _TEXT),
    ("ScopeVersion", _TEXT),
    ("ScopeAttributes", _MAP),
    ("ScopeDroppedAttrCount", "UInt32"),
    ("ScopeSchemaUrl", _TEXT),
    ("ServiceName", _WORD),
    ("MetricName", _WORD),
    ("MetricDescription", _TEXT),
    ("MetricUnit", _TEXT),
    ("Attributes", _MAP),
    ("StartTimeUnix", _NANOSECONDS),
    ("TimeUnix", _NANOSECONDS),
)
_EXEMPLARS: Final[Columns] = (
    ("Exemplars.FilteredAttributes", f"Array({_MAP})"),
    ("Exemplars.TimeUnix", f"Array({_NANOSECONDS})"),
    ("Exemplars.Value", "Array(Float64)"),
    ("Exemplars.SpanId", "Array(String)"),
    ("Exemplars.TraceId", "Array(String)"),
)
_NUMBER: Final[Columns] = (*_POINT, ("Value", "Float64"), ("Flags", "UInt32"), *_EXEMPLARS)
_BOUNDS: Final[Columns] = (("Min", "Float64"), ("Max", "Float64"), ("AggregationTemporality", "Int32"))


class Table(NamedTuple):
    """One table. `indexes` are (name, expression, type)."""

    columns: Columns
    partition: str
    order: str
    indexes: tuple[tuple[str, str, str], ...] = ()


def _metric(columns: Columns) -> Table:
    order = "ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix"
    return Table(columns, "toDate(TimeUnix)", order, (("idx_time_minmax", "TimeUnix", "minmax"),))


TABLES: Final[dict[str, Table]] = {
    TRACES: Table(
        (
            ("Timestamp", _NANOSECONDS),
            ("TraceId", _TEXT),
            ("SpanId", _TEXT),
            ("ParentSpanId", _TEXT),
            ("TraceState", _TEXT),
            ("SpanName", _WORD),
            ("SpanKind", _WORD),
            ("ServiceName", _WORD),
            ("ResourceAttributes", _MAP),
            ("ScopeName", _TEXT),
            ("ScopeVersion", _TEXT),
            ("SpanAttributes", _MAP),
            ("Duration", "UInt64"),
            ("StatusCode", _WORD),
            ("StatusMessage", _TEXT),
            ("Events.Timestamp", f"Array({_NANOSECONDS})"),
            ("Events.Name", f"Array({_WORD})"),
            ("Events.Attributes", f"Array({_MAP})"),
            ("Links.TraceId", "Array(String)"),
            ("Links.SpanId", "Array(String)"),
            ("Links.TraceState", "Array(String)"),
            ("Links.Attributes", f"Array({_MAP})"),
        ),
        "toDate(Timestamp)",
        "ServiceName, SpanName, toDateTime(Timestamp)",
        (
            ("idx_trace_id", "TraceId", "bloom_filter(0.001)"),
            ("idx_duration", "Duration", "minmax"),
        ),
    ),
    LOGS: Table(
        (
            ("Timestamp", _NANOSECONDS),
            ("TraceId", _TEXT),
            ("SpanId", _TEXT),
            ("TraceFlags", "UInt8"),
            ("SeverityText", _WORD),
            ("SeverityNumber", "UInt8"),
            ("ServiceName", _WORD),
            ("Body", _TEXT),
            ("ResourceSchemaUrl", _WORD),
            ("ResourceAttributes", _MAP),
            ("ScopeSchemaUrl", _WORD),
            ("ScopeName", _TEXT),
            ("ScopeVersion", _WORD),
            ("ScopeAttributes", _MAP),
            ("LogAttributes", _MAP),
            ("EventName", _TEXT),
        ),
        "toDate(Timestamp)",
        "toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp",
        (
            ("idx_trace_id", "TraceId", "bloom_filter(0.001)"),
            ("idx_lower_body", "lower(Body)", "tokenbf_v1(32768, 3, 0)"),
        ),
    ),
    GAUGE: _metric(_NUMBER),
    SUM: _metric((*_NUMBER, ("AggregationTemporality", "Int32"), ("IsMonotonic", "Bool"))),
    HISTOGRAM: _metric(
        (
            *_POINT,
            ("Count", "UInt64"),
            ("Sum", "Float64"),
            ("BucketCounts", "Array(UInt64)"),
            ("ExplicitBounds", "Array(Float64)"),
            *_EXEMPLARS,
            ("Flags", "UInt32"),
            *_BOUNDS,
        )
    ),
    EXPONENTIAL_HISTOGRAM: _metric(
        (
            *_POINT,
            ("Count", "UInt64"),
            ("Sum", "Float64"),
            ("Scale", "Int32"),
            ("ZeroCount", "UInt64"),
            ("PositiveOffset", "Int32"),
            ("PositiveBucketCounts", "Array(UInt64)"),
            ("NegativeOffset", "Int32"),
            ("NegativeBucketCounts", "Array(UInt64)"),
            *_EXEMPLARS,
            ("Flags", "UInt32"),
            *_BOUNDS,
        )
    ),
    SUMMARY: _metric(
        (
            *_POINT,
            ("Count", "UInt64"),
            ("Sum", "Float64"),
            ("ValueAtQuantiles.Quantile", "Array(Float64)"),
            ("ValueAtQuantiles.Value", "Array(Float64)"),
            ("Flags", "UInt32"),
        )
    ),
}


def quoted(name: str) -> str:
    """An identifier for ClickHouse's SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def create_statements(database: str, table: str, engine: str, ttl_s: float) -> Iterator[str]:
    """What makes a table where it is absent; for traces also the look-up of a trace's time by its id, which Grafana's
    plugin asks. `ttl_s` 0 keeps rows for ever. `engine` is ClickHouse's own text, such as `MergeTree`.
    """
    yield f"CREATE DATABASE IF NOT EXISTS {quoted(database)}"
    described = TABLES[table]
    parts = [f"    {quoted(name)} {kind} CODEC({_codec(kind)})" for name, kind in described.columns]
    for name, kind in described.columns:
        if kind == _MAP:
            for part in ("Keys", "Values"):
                index = f"idx_{name}_{part.lower()}"
                parts.append(f"    INDEX {index} map{part}({quoted(name)}) TYPE bloom_filter(0.01) GRANULARITY 1")
    parts += [f"    INDEX {name} {what} TYPE {kind} GRANULARITY 1" for name, what, kind in described.indexes]
    time = "Timestamp" if table in (TRACES, LOGS) else "TimeUnix"
    settings = ["index_granularity = 8192", "ttl_only_drop_parts = 1"]
    if "Replicated" not in engine and "Shared" not in engine:  # those remember by themselves
        settings.append(f"non_replicated_deduplication_window = {REMEMBERED_INSERTS}")
    yield "\n".join(
        (
            f"CREATE TABLE IF NOT EXISTS {quoted(database)}.{quoted(table)} (",
            ",\n".join(parts),
            f") ENGINE = {engine}",
            f"PARTITION BY {described.partition}",
            f"ORDER BY ({described.order})",
            *([f"TTL toDateTime({time}) + toIntervalSecond({int(ttl_s)})"] if ttl_s else []),
            f"SETTINGS {', '.join(settings)}",
        )
    )
    if table == TRACES:
        yield from _trace_lookup(database, engine, ttl_s)


def _trace_lookup(database: str, engine: str, ttl_s: float) -> Iterator[str]:
    lookup = f"{quoted(database)}.{quoted(f'{TRACES}_trace_id_ts')}"
    ttl = f" TTL toDateTime(Start) + toIntervalSecond({int(ttl_s)})" if ttl_s else ""
    yield (
        f"CREATE TABLE IF NOT EXISTS {lookup} (TraceId String CODEC(ZSTD(1)), "
        "Start DateTime CODEC(Delta, ZSTD(1)), End DateTime CODEC(Delta, ZSTD(1)), "
        "INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1) "
        f"ENGINE = {engine} PARTITION BY toDate(Start) ORDER BY (TraceId, Start){ttl} "
        "SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1"
    )
    yield (
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {quoted(database)}.{quoted(f'{TRACES}_trace_id_ts_mv')} TO {lookup} "
        "AS SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End "
        f"FROM {quoted(database)}.{quoted(TRACES)} WHERE TraceId != '' GROUP BY TraceId"
    )


def _codec(kind: str) -> str:
    """Times and counts grow: their differences compress better."""
    return "Delta, ZSTD(1)" if kind == _NANOSECONDS else "ZSTD(1)"

"""The ClickHouse exporter over HTTP against the real engine (chdb): tables, fidelity, repetition, refusals."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import trustme
from deltalake import DeltaTable
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode
from hubscope.errors import RetryableError
from hubscope.exporters.clickhouse import MAX_FOR_NOTHING, MAX_INSERTS, ClickHouseConfig, ClickHouseExporter
from hubscope.exporters.clickhouse_schema import TABLES, create_statements
from hubscope.exporters.lake import LakeExporter
from hubscope.exporters.tls import Tls
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, LOGS, ROLLUP, SCHEMAS, SUM, SUMMARY, TRACES
from hubscope.processors.batch import Batch

if sys.platform == "win32":
    pytest.skip("chdb has no wheel for Windows", allow_module_level=True)

from tests.exporters.clickhouse_server import ClickHouse

T = 1_700_000_000_123_456_789  # nanoseconds that microseconds do not hold


@pytest.fixture
def server() -> Iterator[ClickHouse]:
    with closing(ClickHouse()) as made:
        yield made


@pytest.fixture
def exporter(server: ClickHouse) -> Iterator[ClickHouseExporter]:
    with closing(ClickHouseExporter(ClickHouseConfig("ch", server.url, database="hub"), "writer")) as made:
        yield made


def fill_attributes(attributes: Any) -> None:
    """Every kind of value."""
    values = {"text": "naïve \U0001f600", "int": -(2**62), "double": 0.1, "bool": True, "bytes": b"\x00\xff"}
    for key, value in values.items():
        kind = {"text": "string_value"}.get(key, f"{key}_value")
        setattr(attributes.add(key=key).value, kind, value)
    attributes.add(key="array").value.array_value.values.add().int_value = 1
    attributes.add(key="kvlist").value.kvlist_value.values.add(key="k").value.string_value = "v"
    attributes.add(key="empty")


def traces() -> Record:
    request = ExportTraceServiceRequest()
    above = request.resource_spans.add(schema_url="https://resource.example")
    above.resource.attributes.add(key="service.name").value.string_value = "shop"
    fill_attributes(above.resource.attributes)
    within = above.scope_spans.add(schema_url="https://scope.example")
    within.scope.name, within.scope.version = "library", "1.2"
    span = within.spans.add(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        parent_span_id=b"p" * 8,
        trace_state="a=b",
        name="GET /",
        kind=2,
        start_time_unix_nano=T,
        end_time_unix_nano=T + 1001,
        flags=257,
        dropped_attributes_count=3,
    )
    span.status.code, span.status.message = 2, "went wrong"
    fill_attributes(span.attributes)
    for number in range(2):
        event = span.events.add(time_unix_nano=T + number, name=f"event {number}")
        fill_attributes(event.attributes)
        link = span.links.add(trace_id=b"u" * 16, span_id=bytes([number] * 8), trace_state="c=d")
        fill_attributes(link.attributes)
    within.spans.add(name="nothing else")
    within.spans.add(name="the clock went back", start_time_unix_nano=T, end_time_unix_nano=T - 5)
    return Record(Signal.TRACES, request.SerializeToString(), T)


def logs() -> Record:
    request = ExportLogsServiceRequest()
    above = request.resource_logs.add(schema_url="https://resource.example")
    fill_attributes(above.resource.attributes)
    within = above.scope_logs.add(schema_url="https://scope.example")
    within.scope.name, within.scope.version = "library", "1.2"
    fill_attributes(within.scope.attributes)
    record = within.log_records.add(
        time_unix_nano=T,
        observed_time_unix_nano=T + 5,
        severity_number=17,
        severity_text="ERROR",
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        flags=1,
        event_name="hub.alert",
    )
    record.body.string_value = "it said 'no'\n"
    fill_attributes(record.attributes)
    within.log_records.add(observed_time_unix_nano=T + 7).body.kvlist_value.values.add(key="k").value.int_value = 1
    return Record(Signal.LOGS, request.SerializeToString(), T)


def fill_exemplars(exemplars: Any) -> None:
    for number, value in enumerate(({"as_double": 0.5}, {"as_int": 7})):
        added = exemplars.add(time_unix_nano=T + number, span_id=b"s" * 8, trace_id=b"t" * 16, **value)
        fill_attributes(added.filtered_attributes)


def metrics() -> Record:
    request = ExportMetricsServiceRequest()
    above = request.resource_metrics.add(schema_url="https://resource.example")
    above.resource.attributes.add(key="service.name").value.string_value = "shop"
    within = above.scope_metrics.add(schema_url="https://scope.example")
    within.scope.name, within.scope.version, within.scope.dropped_attributes_count = "library", "1.2", 4
    fill_attributes(within.scope.attributes)
    common: dict[str, Any] = {"start_time_unix_nano": T, "time_unix_nano": T + 1, "flags": 1}
    made = {kind: within.metrics.add(name=kind, description=f"a {kind}", unit="s") for kind in KINDS}
    points: list[Any] = []
    for kind, value in (("gauge", {"as_double": 1.5}), ("gauge", {"as_int": -5}), ("sum", {"as_int": 2**62})):
        points.append(getattr(made[kind], kind).data_points.add(**common, **value))
        fill_exemplars(points[-1].exemplars)
    made["gauge"].gauge.data_points.add(time_unix_nano=T)  # without a value
    made["sum"].sum.aggregation_temporality, made["sum"].sum.is_monotonic = 2, True
    histogram = made["histogram"].histogram
    histogram.aggregation_temporality = 1
    points.append(
        histogram.data_points.add(
            **common, count=3, sum=4.5, min=0.5, max=3.0, bucket_counts=[1, 2, 0], explicit_bounds=[1.0, 2.0]
        )
    )
    histogram.data_points.add(**common, count=1)  # no sum, minimum and maximum, no buckets
    exponential = made["exponential_histogram"].exponential_histogram
    exponential.aggregation_temporality = 2
    points.append(exponential.data_points.add(**common, count=9, sum=4.5, min=-3, max=3, scale=-2, zero_count=4))
    for side, offset in ((points[-1].positive, -3), (points[-1].negative, 4)):
        side.offset = offset
        side.bucket_counts.extend([1, 0, 2**40])
    for point in points[-2:]:
        fill_exemplars(point.exemplars)
    points.append(made["summary"].summary.data_points.add(**common, count=10, sum=99.5))
    for quantile in (0.5, 0.99):
        points[-1].quantile_values.add(quantile=quantile, value=quantile * 10)
    for point in points:
        fill_attributes(point.attributes)
    return Record(Signal.METRICS, request.SerializeToString(), T)


KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
EVERYTHING = (traces(), logs(), metrics())


def batch(segment: int = 1, records: tuple[Record, ...] = EVERYTHING) -> Batch:
    return Batch(segment, T, decode(records))


def plain(value: Any, kind: str) -> Any:
    """What the engine answered, with times as nanoseconds and maps as dicts."""
    if kind.startswith("Array("):
        return [plain(part, kind[len("Array(") : -1]) for part in value]
    if kind.startswith("Map("):
        return dict(value)
    return int(value.value) if kind == "DateTime64(9)" else value  # a pandas Timestamp, which holds nanoseconds


def expected(row: dict[str, Any], column: str, kind: str) -> Any:
    """What a column should hold, from the lake's row: told by lake_schema's words, not by the exporter's code."""
    exact = {"Timestamp": "TimestampUnixNano", "TimeUnix": "TimeUnixNano", "StartTimeUnix": "StartTimeUnixNano"}
    outer, _, inner = column.partition(".")
    if inner:
        return [expected(member, inner, kind[len("Array(") : -1]) for member in row[outer] or []]
    if column == "Timestamp" and not row["TimestampUnixNano"] and row.get("ObservedTimestampUnixNano"):
        return row["ObservedTimestampUnixNano"]
    if column in exact:
        return row[exact[column]]
    if column == "Duration":
        return max(0, row["Duration"])
    value = row[column]
    if kind.startswith("Map("):
        return dict(value or [])
    if value is None:
        return [] if kind.startswith("Array(") else "" if "String" in kind else False if kind == "Bool" else 0
    return value


def test_one_of_everything_is_read_back_as_the_lake_has_it(
    server: ClickHouse, exporter: ClickHouseExporter, tmp_path: Path
) -> None:
    """Every column of all seven tables holds, row for row, what the lake's row holds."""
    lake = LakeExporter(str(tmp_path / "lake"), upkeep=False)
    lake.export(batch())
    exporter.export(batch())
    rows_seen = 0
    for table, described in TABLES.items():
        rows = DeltaTable(f"{tmp_path}/lake/{table}").to_pyarrow_table().to_pylist()
        found = server.query(f"SELECT * FROM hub.{table}").to_pylist()
        assert list(found[0]) == [name for name, _ in described.columns]
        wanted = [{name: expected(row, name, kind) for name, kind in described.columns} for row in rows]
        got = [{name: plain(row[name], kind) for name, kind in described.columns} for row in found]
        assert sorted(got, key=repr) == sorted(wanted, key=repr)
        rows_seen += len(rows)
    assert rows_seen == exporter.sent == 3 + 2 + 3 + 1 + 2 + 1 + 1
    assert (exporter.dropped, exporter.sent_of(1)) == (0, rows_seen)


def test_the_trace_is_found_by_its_id(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """The look-up table that Grafana's plugin asks is fed by what is inserted."""
    exporter.export(batch())
    (row,) = server.query(
        f"SELECT TraceId FROM hub.otel_traces_trace_id_ts WHERE TraceId = '{b't'.hex() * 16}'"
    ).to_pylist()
    assert row["TraceId"] == "74" * 16


def count(server: ClickHouse, table: str) -> int:
    return int(server.query(f"SELECT count() AS n FROM hub.{table}").to_pylist()[0]["n"])


def test_what_is_sent_again_counts_once(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """An answer that is lost, and a worker that is killed before it noted the segment, make no row twice."""
    server.before = lambda sql: "after" if sql.startswith("INSERT") and len(server.inserts) < 3 else None
    for _ in range(9):
        try:
            exporter.export(batch())
            break
        except RetryableError:
            continue
    with closing(ClickHouseExporter(ClickHouseConfig("ch", server.url, database="hub"), "writer")) as restarted:
        restarted.export(batch())
        restarted.export(batch(2))
    assert server.inserts.count(f"writer/1/{TRACES}") >= 2
    assert {table: count(server, table) for table in TABLES} == {
        TRACES: 6, LOGS: 4, GAUGE: 6, SUM: 2, HISTOGRAM: 4, EXPONENTIAL_HISTOGRAM: 2, SUMMARY: 2,
    }  # fmt: skip


def test_a_plain_table_without_memory_gets_it_at_least_once(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """In a table that somebody else made without a deduplication window, a repetition after a crash is there twice."""
    for statement in create_statements("hub", TRACES, "MergeTree", 0):
        server.query(statement.replace(", non_replicated_deduplication_window = 2000", ""))
    exporter.export(batch())
    with closing(ClickHouseExporter(ClickHouseConfig("ch", server.url, database="hub"), "writer")) as restarted:
        restarted.export(batch())
    assert count(server, TRACES) == 6
    assert count(server, LOGS) == 2


def test_columns_of_ours_are_sent_where_the_table_has_them(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """A table with more columns, and times in seconds, gets all that fits; what it computes itself is left alone."""
    server.query("CREATE DATABASE hub")
    server.query(
        "CREATE TABLE hub.otel_traces (Timestamp DateTime, SpanName String, SpanAttributeTypes Map(String, String), "
        "`Events.AttributeTypes` Array(Map(String, String)), `Events.Timestamp` Array(DateTime), TraceFlags UInt32, "
        "Nobodys String DEFAULT 'theirs', Upper String MATERIALIZED upper(SpanName)) "
        "ENGINE = MergeTree ORDER BY SpanName"
    )
    exporter.export(batch())
    row = server.query(
        "SELECT *, Upper, toUnixTimestamp(Timestamp) AS s, arrayMap(t -> toUnixTimestamp(t), `Events.Timestamp`) AS e "
        "FROM hub.otel_traces WHERE SpanName = 'GET /'"
    ).to_pylist()[0]
    types = {"int": "int", "double": "double", "bool": "bool", "bytes": "bytes"}
    types |= {"array": "array", "kvlist": "kvlist", "empty": "empty"}
    assert dict(row["SpanAttributeTypes"]) == types
    assert [dict(found) for found in row["Events.AttributeTypes"]] == [types, types]
    assert (row["TraceFlags"], row["Nobodys"], row["Upper"]) == (257, "theirs", "GET /")
    assert (row["s"], row["e"]) == (T // 10**9, [T // 10**9] * 2)


def test_without_create_schema_a_missing_table_is_waited_for(server: ClickHouse) -> None:
    """It is said which table is missing; when somebody has made it, the rows go in. Other tables had theirs already."""
    config = ClickHouseConfig("ch", server.url, database="hub", create_schema=False)
    for table in (LOGS, GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY):
        for statement in create_statements("hub", table, "MergeTree", 0):
            server.query(statement)
    with closing(ClickHouseExporter(config, "w")) as exporter:
        with pytest.raises(RetryableError, match=r"there is no table hub\.otel_traces"):
            exporter.export(batch())
        for statement in create_statements("hub", TRACES, "MergeTree", 3600):
            server.query(statement)
        exporter.export(batch())
        assert (exporter.sent, exporter.dropped) == (13, 0)
    assert "toIntervalSecond(3600)" in server.query("SHOW CREATE TABLE hub.otel_traces").to_pylist()[0]["statement"]


def test_what_clickhouse_refuses_is_counted_and_passed(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """Rows that break a table's constraint are dropped with the reason; the other tables, and later rows, go in."""
    exporter.export(batch())
    server.query("ALTER TABLE hub.otel_logs ADD CONSTRAINT quiet CHECK SeverityNumber < 17")
    exporter.export(batch(2))
    assert (exporter.sent, exporter.dropped, exporter.sent_of(2)) == (13 + 12, 1, 13)
    assert "otel_logs" in exporter.last_refusal
    assert (count(server, LOGS), count(server, TRACES)) == (3, 6)


def severities(*numbers: int) -> Batch:
    request = ExportLogsServiceRequest()
    within = request.resource_logs.add().scope_logs.add()
    for time, number in enumerate(numbers, start=T):
        within.log_records.add(time_unix_nano=time, severity_number=number)
    return batch(2, (Record(Signal.LOGS, request.SerializeToString(), T),))


def test_only_the_rows_that_clickhouse_refuses_are_dropped(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """Three of 500 rows break a constraint: 497 go in, once, also when ClickHouse is away in the middle of the search
    and when a worker is killed in it."""
    exporter.export(batch())
    server.query("ALTER TABLE hub.otel_logs ADD CONSTRAINT quiet CHECK SeverityNumber < 17")
    sent = severities(*(17 if n in (0, 255, 430) else 1 for n in range(500)))
    before = len(server.inserts)
    for away_after in (5, 20):
        server.before = lambda sql, n=away_after: 503 if len(server.inserts) >= before + n else None
        with pytest.raises(RetryableError):
            exporter.export(sent)
    server.before = lambda sql: None
    exporter.export(sent)
    assert (exporter.sent, exporter.dropped, exporter.sent_of(2)) == (13 + 497, 3, 500)
    with closing(ClickHouseExporter(ClickHouseConfig("ch", server.url, database="hub"), "writer")) as restarted:
        restarted.export(sent)
    assert count(server, LOGS) == 2 + 497


def test_a_table_that_refuses_everything_is_not_asked_for_each_row(
    server: ClickHouse, exporter: ClickHouseExporter
) -> None:
    """Of 500 rows that all break a constraint it is found out in 31 inserts, and they are counted; where every third
    does, in at most twice the bound."""
    exporter.export(batch())
    server.query("ALTER TABLE hub.otel_logs ADD CONSTRAINT quiet CHECK SeverityNumber < 17")
    before = len(server.inserts)
    exporter.export(severities(*[17] * 500))
    assert (exporter.dropped, len(server.inserts) - before) == (500, 2 * MAX_FOR_NOTHING + 1)
    exporter.export(replace(severities(*[17] * 10, *[1, 1, 17] * 300), segment=3))
    assert len(server.inserts) - before <= 2 * MAX_FOR_NOTHING + 1 + 2 * MAX_INSERTS + 1
    assert exporter.sent_of(3) == 910
    assert exporter.sent + exporter.dropped == 13 + 500 + 910


@pytest.mark.parametrize("status", [500, 503, 401, 404])
def test_a_clickhouse_in_trouble_is_asked_again(server: ClickHouse, exporter: ClickHouseExporter, status: int) -> None:
    """Whatever it answers that is no fault of the rows, nothing is dropped, and it goes in afterwards."""
    server.before = lambda sql: status
    with pytest.raises(RetryableError, match="127"):
        exporter.export(batch())
    server.before = lambda sql: status if sql.startswith("INSERT") else None
    with pytest.raises(RetryableError):
        exporter.export(batch())
    server.before = lambda sql: None
    exporter.export(batch())
    assert (exporter.sent, exporter.dropped) == (13, 0)


def test_a_clickhouse_that_is_down_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The error that is raised is all: the libraries beneath say nothing of their own."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        exporter = ClickHouseExporter(ClickHouseConfig("ch", f"http://127.0.0.1:{closed.getsockname()[1]}"), "w")
        with pytest.raises(RetryableError, match="refused"):
            exporter.export(batch(1))
        exporter.close()
    assert caplog.records == []


def test_a_password_is_in_no_error(server: ClickHouse) -> None:
    """Neither a refusal nor a server that is not there makes the password seen."""
    config = ClickHouseConfig("ch", server.url, username="u", password="s3cr3t")
    server.before = lambda sql: 401
    for url in (server.url, "http://127.0.0.1:1"):
        with closing(ClickHouseExporter(ClickHouseConfig("ch", url, username="u", password="s3cr3t"), "w")) as exporter:
            with pytest.raises(RetryableError) as caught:
                exporter.export(batch())
            assert "s3cr3t" not in str(caught.value)
    assert config.password == "s3cr3t"


def test_more_days_than_clickhouse_likes_go_in_at_once(server: ClickHouse, exporter: ClickHouseExporter) -> None:
    """A broken clock makes more partitions than ClickHouse takes by default; nobody's rows are kept out by that."""
    request = ExportTraceServiceRequest()
    found = request.resource_spans.add().scope_spans.add().spans
    for day in range(150):
        found.add(name="x", trace_id=b"t" * 16, start_time_unix_nano=T - day * 86_400 * 10**9)
    exporter.export(batch(1, (Record(Signal.TRACES, request.SerializeToString(), T),)))
    assert count(server, TRACES) == 150


@pytest.mark.parametrize("told", ["own CA", "skip", "nothing"])
def test_clickhouse_over_tls(server: ClickHouse, tmp_path: Path, told: str) -> None:
    """With its CA's file, or with `insecure_skip_verify` under another name, rows go in; otherwise nothing is sent."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = ca.issue_cert("127.0.0.1" if told == "own CA" else "elsewhere.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    server.encrypt(context)
    tls = {"own CA": Tls(ca_file=str(tmp_path / "ca.pem")), "skip": Tls(insecure_skip_verify=True)}.get(told, Tls())
    config = ClickHouseConfig("ch", server.url.replace("http:", "https:"), database="hub", tls=tls, timeout_s=10)
    with closing(ClickHouseExporter(config, "w")) as exporter:
        if told == "nothing":
            with pytest.raises(RetryableError, match="certificate"):
                exporter.export(batch())
        else:
            exporter.export(batch())
        assert exporter.sent == (0 if told == "nothing" else 13)


def test_tables_are_those_of_the_lake() -> None:
    """Each of OTLP's tables of the lake has one here, and each of its columns comes from a column that the lake has."""
    assert set(TABLES) == set(SCHEMAS) - {ROLLUP}  # which is made of the others
    for table, described in TABLES.items():
        for name, _ in described.columns:
            outer, _, inner = name.partition(".")
            field = SCHEMAS[table].field(outer)
            assert not inner or inner in [f.name for f in field.type.value_type]
            assert bool(inner) == pa.types.is_list(field.type) or outer.endswith(("Counts", "Bounds"))

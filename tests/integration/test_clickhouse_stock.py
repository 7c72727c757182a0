"""Our ClickHouse tables beside those that the stock Collector's exporter makes: its own statements, the real engine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hubscope.exporters.clickhouse import ClickHouseConfig, ClickHouseExporter
from hubscope.exporters.clickhouse_schema import TABLES
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, LOGS, SUM, SUMMARY, TRACES
from tests.exporters.clickhouse_server import ClickHouse
from tests.exporters.test_clickhouse import batch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

MODULE = "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/clickhouseexporter@v0.161.0"
TEMPLATES = {
    TRACES: "traces_table.sql",
    LOGS: "logs_table.sql",
    GAUGE: "metrics_gauge_table.sql",
    SUM: "metrics_sum_table.sql",
    HISTOGRAM: "metrics_histogram_table.sql",
    EXPONENTIAL_HISTOGRAM: "metrics_exp_histogram_table.sql",
    SUMMARY: "metrics_summary_table.sql",
}


@pytest.fixture(scope="module")
def statements(tool: Callable[[str], str]) -> dict[str, str]:
    """Table -> the stock exporter's CREATE TABLE in the database `stock`, from its module as Go's proxy has it."""
    done = subprocess.run([tool("go"), "mod", "download", "-json", MODULE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(json.loads(done.stdout)["Dir"]) / "internal" / "sqltemplates"
    return {table: filled((folder / name).read_text(), table) for table, name in TEMPLATES.items()}


def filled(template: str, table: str) -> str:
    """A template with its blanks filled: database, table, no cluster, the engine, no time to live."""
    if "{{" in template:  # logs: the branch for engines without a full-text index
        template = re.sub(
            r"\{\{-? if .*?\}\}.*?\{\{-? else.*?\}\}(.*?)\{\{-? end.*?\}\}", r"\1", template, flags=re.DOTALL
        )
        blanks = {"ident .Database": "stock", "ident .TableName": table, ".Engine": "MergeTree()"}
        return re.sub(r"\{\{(.*?)\}\}", lambda found: blanks.get(found[1].strip(), ""), template)
    values = iter(["stock", table, "", "MergeTree()", ""])
    return re.sub(r"%[qs]", lambda _: next(values), template)


@pytest.fixture
def server() -> Iterator[ClickHouse]:
    with closing(ClickHouse()) as made:
        yield made


def columns(server: ClickHouse, database: str, table: str) -> list[tuple[str, str]]:
    """(name, type) of what can be inserted, in the table's order."""
    found = server.query(
        f"SELECT name, type FROM system.columns WHERE database = '{database}' AND table = '{table}' "
        "AND default_kind = '' ORDER BY position"
    ).to_pylist()
    return [(row["name"], row["type"]) for row in found]


def test_our_tables_are_the_stock_ones(server: ClickHouse, statements: dict[str, str]) -> None:
    """Names, order and types are equal but for the times of metrics, which ours keep to the nanosecond."""
    server.query("CREATE DATABASE stock")
    with closing(ClickHouseExporter(ClickHouseConfig("ch", server.url, database="ours"), "w")) as exporter:
        exporter.export(batch())
    for table, statement in statements.items():
        server.query(statement)
        finer = [
            (name, re.sub(r"DateTime\b(?!64)", "DateTime64(9)", kind)) for name, kind in columns(server, "stock", table)
        ]
        assert columns(server, "ours", table) == finer


def test_rows_go_into_the_stock_tables(server: ClickHouse, statements: dict[str, str]) -> None:
    """Everything goes into tables that the stock exporter made, and what is in them is what is in ours."""
    server.query("CREATE DATABASE stock")
    for statement in statements.values():
        server.query(statement)
    for database, create_schema in (("stock", False), ("ours", True)):
        config = ClickHouseConfig("ch", server.url, database=database, create_schema=create_schema)
        with closing(ClickHouseExporter(config, "w")) as exporter:
            exporter.export(batch())
            assert (exporter.sent, exporter.dropped) == (13, 0)
    for table in TABLES:
        names = [name for name, kind in columns(server, "stock", table) if "DateTime" not in kind or "64" in kind]
        chosen = ", ".join(f"`{name}`" for name in names)
        both = [server.query(f"SELECT {chosen} FROM {d}.{table} ORDER BY ALL").to_pylist() for d in ("stock", "ours")]
        assert both[0] == both[1]

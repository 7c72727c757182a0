"""What is in a lake, as plain figures: tables, services with their versions and runs, freshness, and who writes it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hubscope.console import collector_link, lake_checks
from hubscope.console.options import state_dir

if TYPE_CHECKING:
    import duckdb

    from hubscope.lake_paths import DataFile


@dataclass(frozen=True)
class Table:
    name: str
    rows: int
    files: int
    size_bytes: int
    cold_size_bytes: int  # of them, in the cold tier
    oldest: str | None  # RFC 3339
    newest: str | None


@dataclass(frozen=True)
class Service:
    name: str
    versions: tuple[str, ...]  # the first seen first
    runs: int  # different pairs of instance and version
    spans: int
    newest: str | None


@dataclass(frozen=True)
class Collector:
    """The collector of this lake. `health` is what its `/healthz` says; None where it does not answer."""

    pid: int
    addresses: dict[str, str]
    health: dict[str, Any] | None


@dataclass(frozen=True)
class Status:
    lake: str
    lake_version: int
    tables: tuple[Table, ...]
    services: tuple[Service, ...]
    collector: Collector | None
    log_segments_waiting: int | None  # not in the lake yet; None where the log is not on this machine
    forwards_waiting: dict[str, int]  # destination -> segments not passed on; those that have everything are left out

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read(lake: str) -> Status:
    """Raises LakeError where there is no lake, or it cannot be read."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    from hubscope.analytics.connect import connect
    from hubscope.analytics.fetch import fetch
    from hubscope.lake_paths import files_of
    from hubscope.lake_schema import LAKE_VERSION, SCHEMAS

    connection = connect(lake)
    tables = []
    for name, schema in SCHEMAS.items():
        time = "Timestamp" if "Timestamp" in schema.names else "TimeUnix"
        (rows, oldest, newest), *_ = fetch(connection, f"SELECT count(*), min({time}), max({time}) FROM {name}")[1]
        files: list[DataFile] = []
        with contextlib.suppress(TableNotFoundError):
            files = files_of(DeltaTable(f"{lake.rstrip('/')}/{name}"))
        size_bytes = sum(file.size_bytes for file in files)
        cold_bytes = sum(file.size_bytes for file in files if file.is_cold)
        tables.append(Table(name, rows, len(files), size_bytes, cold_bytes, _rfc3339(oldest), _rfc3339(newest)))
    state = state_dir(lake)
    found = collector_link.waiting(state) if state is not None and state.is_dir() else None
    return Status(
        lake=lake,
        lake_version=LAKE_VERSION,
        tables=tuple(tables),
        services=_services(connection),
        collector=_collector(lake),
        log_segments_waiting=len(found.lake) if found is not None else None,
        forwards_waiting=found.destinations if found is not None else {},
    )


def _services(connection: duckdb.DuckDBPyConnection) -> tuple[Service, ...]:
    from hubscope.analytics.fetch import fetch

    rows = fetch(
        connection,
        """
        SELECT service, list(version ORDER BY first_seen, version) FILTER (version IS NOT NULL),
            sum(runs), sum(spans), max(newest)
        FROM (
            SELECT ServiceName AS service, ServiceVersion AS version, min(Timestamp) AS first_seen,
                count(DISTINCT coalesce(ServiceInstanceId, ''))
                    - count(DISTINCT ServiceInstanceId) FILTER (
                        SpanName = 'hub.startup.worker' AND SpanAttributes['hub.startup.parent'] <> ServiceInstanceId
                    ) AS runs,
                count(*) AS spans, max(Timestamp) AS newest
            FROM otel_traces GROUP BY ServiceName, ServiceVersion
        ) GROUP BY service ORDER BY service
        """,
    )[1]
    return tuple(Service(r[0], tuple(r[1] or ()), r[2], r[3], _rfc3339(r[4])) for r in rows)


def _collector(lake: str) -> Collector | None:
    state = state_dir(lake)
    record = collector_link.recorded(state) if state is not None else None
    if record is None:
        return None
    address = lake_checks.telemetry_address(record)
    addresses = record.get("addresses", {})
    named = {str(k): str(v) for k, v in addresses.items()} if isinstance(addresses, dict) else {}
    return Collector(int(record["pid"]), named, collector_link.health(address, state) if address else None)


def _rfc3339(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None

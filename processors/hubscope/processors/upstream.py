"""What a hubscope collector, or an application with the SDK's processors, had derived before it came here.

Rows that processors derive name their scope, `rows.SCOPE`, and keep it wherever they are forwarded. A collector that
forwards sends them ahead of the spans and points that they are made of. So those of a series up to its newest arrived
point are in it, and nothing is derived of them again: the series is one, whoever stores it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow.compute as pc

from hubscope import semconv
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, SUM
from hubscope.processors import rows
from hubscope.processors.batch import Batch

MAX_SERIES: Final = 20_000  # twice the KPI windows there may be; beyond it those that came least recently are forgotten

_TABLES: Final = (GAUGE, SUM, EXPONENTIAL_HISTOGRAM)
_COLUMNS: Final = ("MetricName", "ServiceName", "ServiceVersion", "ServiceInstanceId", "Attributes", "TimeUnixNano")


class Upstream:
    """Up to when each derived series has come. Before the processors that derive: they ask it."""

    name = "upstream"

    def __init__(self) -> None:
        self._until: dict[tuple[str, ...], int] = {}  # the least recently seen first

    def __bool__(self) -> bool:
        return bool(self._until)

    def __call__(self, batch: Batch) -> Batch:
        for series, time_ns in _derived(batch):
            self._until[series] = max(self._until.pop(series, 0), time_ns)
        while len(self._until) > MAX_SERIES:
            del self._until[next(iter(self._until))]
        return batch

    def until(self, metric: str, *whose: str) -> int:
        """Nanoseconds since 1970 of the newest point that came of a series; 0 where none did.

        `whose`: of `hub.kpi.value` service, version and KPI; of `hub.plugin.overhead` service and version; of
        `hub.quota.violations` service, instance, plugin and resource.
        """
        return self._until.get((metric, *whose), 0)

    def snapshot(self) -> dict[str, Any]:
        return {"until": [[*series, time_ns] for series, time_ns in self._until.items()]}

    def restore(self, state: dict[str, Any] | None) -> None:
        self._until = {tuple(series): time_ns for *series, time_ns in (state or {}).get("until", [])}


def _derived(batch: Batch) -> Iterator[tuple[tuple[str, ...], int]]:
    """The series of what arrived derived, and the time of each point."""
    for name in _TABLES:
        table = batch.tables.get(name)
        if table is None or not table.num_rows:
            continue
        ours = pc.equal(table["ScopeName"], rows.SCOPE)
        if not pc.any(ours).as_py():
            continue
        for row in table.select(_COLUMNS).filter(ours).to_pylist():
            series = _series(row)
            if series is not None:
                yield series, row["TimeUnixNano"] or 0


def _series(row: dict[str, Any]) -> tuple[str, ...] | None:
    metric, attributes = row["MetricName"], dict(row["Attributes"] or [])
    service, version = row["ServiceName"] or "", row["ServiceVersion"] or ""
    match metric:
        case semconv.METRIC_KPI:
            return metric, service, version, attributes.get(semconv.HUB_KPI_NAME, "")
        case semconv.METRIC_PLUGIN_OVERHEAD:
            return metric, service, version
        case semconv.METRIC_QUOTA_VIOLATIONS:
            plugin, resource = (
                attributes.get(name, "") for name in (semconv.HUB_PLUGIN_ID, semconv.HUB_QUOTA_RESOURCE)
            )
            return metric, service, row["ServiceInstanceId"] or "", plugin, resource
    return None

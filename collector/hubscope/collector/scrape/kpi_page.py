"""What `/metrics/kpis` tells: KPI values, quota violations, and durations with the spans that they were of.

The worker notes each batch and writes the page, in both its formats, into files that the front hands out as they are:
the front needs neither Arrow nor a parser for it, and neither waits for the other. Counts begin with the worker's
process; a restart makes counters begin anew, which Prometheus expects.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.compute as pc

from hubscope import semconv
from hubscope.collector.scrape.answer import OPENMETRICS_FILE, PLAIN_FILE
from hubscope.collector.scrape.durations import KINDS, OTHER, Durations
from hubscope.collector.scrape.exposition import Exemplar, Family, Sample, text
from hubscope.lake_schema import GAUGE, LOGS, SUM
from hubscope.processors.batch import Batch
from hubscope.processors.columns import SpanColumns

MAX_KPIS: Final = 1000  # those that got a value last
MAX_VIOLATIONS: Final = 500  # series; what comes later is counted under OTHER

_log = logging.getLogger(__name__)


class Kpi(NamedTuple):
    """The last value of one KPI of one service and version."""

    value: float
    aggregate: str
    unit: str
    target: str
    status: str
    time_s: float


class Violations:
    """How many of one plugin and resource, and the call that showed the last one."""

    def __init__(self) -> None:
        self.count = 0.0
        self.exemplar: Exemplar | None = None


class KpiPage:
    """One thread notes batches, another one writes."""

    def __init__(self) -> None:
        self.kpis: OrderedDict[tuple[str, str, str], Kpi] = OrderedDict()  # by service, version and name
        self._violations: dict[tuple[tuple[str, str], ...], Violations] = {}
        self._durations = [Durations(kind) for kind in KINDS]
        self._lock = threading.Lock()
        self._changed = True

    def note(self, batch: Batch) -> None:
        """Take notice of a batch that went through the processors. What fails here keeps nothing out of the lake."""
        try:
            with self._lock:
                self._note(batch)
        except Exception:  # noqa: BLE001 - a page of figures must not stop what arrived
            _log.exception("segment %d is not in /metrics/kpis", batch.segment)

    def _note(self, batch: Batch) -> None:
        for row in _rows(batch, GAUGE, semconv.METRIC_KPI):
            self._note_kpi(row)
        for row in _rows(batch, SUM, semconv.METRIC_QUOTA_VIOLATIONS):
            found = self._violation(row["ServiceName"] or "", dict(row["Attributes"] or ()))
            found.count += row["Value"] or 0.0
            self._changed = True
        self._note_events(batch)
        spans = SpanColumns.of(batch)
        if spans is not None:
            for durations in self._durations:
                self._changed |= durations.note(spans)

    def write(self, directory: Path) -> None:
        """Write both files, if anything changed. Raises OSError."""
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            families = list(self._families())
        try:
            for name, openmetrics in ((PLAIN_FILE, False), (OPENMETRICS_FILE, True)):
                fresh = directory / f"{name}.new"
                fresh.write_text(text(families, openmetrics), "utf-8")
                fresh.replace(directory / name)
        except OSError:
            self._changed = True
            raise

    def status(self) -> list[dict[str, Any]]:
        """The KPIs for worker.json."""
        with self._lock:
            return [
                {
                    "name": name,
                    "service": service,
                    "value": kpi.value,
                    "target": kpi.target or None,
                    "status": kpi.status,
                }
                for (service, _, name), kpi in self.kpis.items()
            ]

    def _note_kpi(self, row: Mapping[str, Any]) -> None:
        attributes = dict(row["Attributes"] or ())
        key = (row["ServiceName"] or "", row["ServiceVersion"] or "", attributes.get(semconv.HUB_KPI_NAME, ""))
        self.kpis[key] = Kpi(
            float("nan") if row["Value"] is None else row["Value"],
            attributes.get(semconv.HUB_KPI_AGGREGATE, ""),
            row["MetricUnit"] or "",
            attributes.get(semconv.HUB_KPI_TARGET, ""),
            attributes.get(semconv.HUB_KPI_STATUS, "unknown"),
            (row["TimeUnixNano"] or 0) / 1e9,
        )
        self.kpis.move_to_end(key)
        while len(self.kpis) > MAX_KPIS:
            self.kpis.popitem(last=False)
        self._changed = True

    def _violation(self, service: str, attributes: Mapping[str, str]) -> Violations:
        labels: tuple[tuple[str, str], ...] = (
            ("service", service),
            ("plugin", attributes.get(semconv.HUB_PLUGIN_ID, "")),
            ("tier", attributes.get(semconv.HUB_PLUGIN_TIER, "")),
            ("resource", attributes.get(semconv.HUB_QUOTA_RESOURCE, "")),
            ("action", attributes.get(semconv.HUB_QUOTA_ACTION, "")),
        )
        if labels not in self._violations and len(self._violations) >= MAX_VIOLATIONS:
            labels = tuple((name, OTHER) for name, _ in labels)
        return self._violations.setdefault(labels, Violations())

    def _note_events(self, batch: Batch) -> None:
        table = batch.derived.get(LOGS)
        if table is None or not table.num_rows:
            return
        columns = ["ServiceName", "LogAttributes", "TraceId", "SpanId", "TimestampUnixNano"]
        events = table.filter(pc.equal(table["EventName"], semconv.EVENT_QUOTA_VIOLATION)).select(columns)
        for row in events.to_pylist():
            if row["TraceId"]:
                found = self._violation(row["ServiceName"] or "", dict(row["LogAttributes"] or ()))
                time_s = (row["TimestampUnixNano"] or 0) / 1e9
                found.exemplar = Exemplar(row["TraceId"], row["SpanId"] or "", 1.0, time_s)

    def _families(self) -> Iterator[Family]:
        values, times = [], []
        for (service, version, name), kpi in self.kpis.items():
            labels = (("service", service), ("version", version), ("kpi", name))
            more = (
                ("aggregate", kpi.aggregate),
                ("unit", kpi.unit),
                ("target", kpi.target),
                ("status", kpi.status),
            )
            values.append(Sample("", (*labels, *more), kpi.value))
            times.append(Sample("", labels, kpi.time_s))
        yield Family("hubscope_kpi", "gauge", "", "The last value of a KPI, in the unit that its label names.", values)
        text = "When the last sample came that the KPI's value is of, in seconds since 1970."
        yield Family("hubscope_kpi_updated_seconds", "gauge", "seconds", text, times)
        violations = [Sample("_total", labels, v.count, v.exemplar) for labels, v in self._violations.items()]
        yield Family("hubscope_quota_violations", "counter", "", "Calls above a plugin's quota.", violations)
        for durations in self._durations:
            yield durations.family()


def _rows(batch: Batch, table_name: str, metric: str) -> list[dict[str, Any]]:
    """The derived points of a metric."""
    table = batch.derived.get(table_name)
    if table is None or not table.num_rows:
        return []
    columns = ["ServiceName", "ServiceVersion", "MetricUnit", "Attributes", "TimeUnixNano", "Value"]
    found: list[dict[str, Any]] = table.filter(pc.equal(table["MetricName"], metric)).select(columns).to_pylist()
    return found

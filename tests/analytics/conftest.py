"""Lakes for tests, described as compact literals: a span is its name, its milliseconds, and its children."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from hubscope import lake_schema
from hubscope.semconv import HOT_COLUMNS

DAY_START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


@dataclasses.dataclass
class Span:
    """A span of a trace literal. Children follow one another from their parent's start, unless `at_ms` places them."""

    name: str
    ms: float
    children: tuple[Span, ...] = ()
    kind: str = "Internal"
    at_ms: float | None = None
    status: str = "Unset"
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    span_id: str = ""
    service: RunBuilder | None = None  # the run of another service that this span and those inside it belong to


def span(name: str, ms: float, *children: Span, at_ms: float | None = None, **options: Any) -> Span:
    return Span(name, ms, children, at_ms=at_ms, **options)


def query(text: str, ms: float, collection: str = "memories", rows: int | None = 1, **options: Any) -> Span:
    """A query span as the sqlite3 instrumentation sends it."""
    attributes = {
        "db.system.name": "sqlite",
        "db.namespace": "hub.db",
        "db.collection.name": collection,
        "db.operation.name": text.split()[0],
        "db.query.text": text,
        "db.query.summary": f"{text.split()[0]} {collection} #{zlib.crc32(text.encode()) & 0xFFFFFF:06x}",
        **({"db.response.returned_rows": rows} if rows is not None else {}),
    }
    return Span(f"{text.split()[0]} {collection}", ms, attributes=attributes, **options)


def plugin(plugin_id: str, hook: str, ms: float, *children: Span, tier: str = "standard", **options: Any) -> Span:
    attributes = {"hub.plugin.id": plugin_id, "hub.plugin.hook": hook, "hub.plugin.tier": tier}
    return Span(f"plugin {plugin_id} {hook}", ms, children, attributes=attributes, **options)


def module_import(module: str, ms: float, *children: Span, used: bool | str = True, **options: Any) -> Span:
    """`used=""`: nobody can say."""
    attributes: dict[str, Any] = {
        "code.namespace": module,
        "hub.import.used_before_interactive": used,
        "hub.import.self_time": (ms - sum(c.ms for c in children)) / 1000,
    }
    if used == "":
        del attributes["hub.import.used_before_interactive"]
    return Span(f"import {module}", ms, children, attributes=attributes, **options)


def phase(name: str, ms: float, *children: Span, **options: Any) -> Span:
    return Span(f"hub.startup.phase {name}", ms, children, attributes={"hub.startup.phase": name}, **options)


def startup(ms: float, *children: Span, type: str = "cold", end: str = "interactive") -> Span:
    attributes = {"hub.startup.type": type, "hub.startup.end": end, "hub.startup.origin": "proc_stat"}
    return Span("hub.startup", ms, children, attributes=attributes)


def search(index: str, ms: float, size: int = 1000, index_type: str = "flat", **options: Any) -> Span:
    attributes = {
        "db.system.name": "usearch",
        "db.collection.name": index,
        "db.operation.name": "search",
        "hub.vector.top_k": 10,
        "hub.vector.dimensions": 1536,
        "hub.vector.size": size,
        "hub.vector.index_type": index_type,
    }
    return Span(f"search {index}", ms, attributes=attributes, **options)


def text_of(value: Any) -> str:
    return "true" if value is True else "false" if value is False else str(value)


def types_of(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    kinds: dict[type, str] = {bool: "bool", int: "int", float: "double"}
    return [(key, kinds[type(value)]) for key, value in attributes.items() if type(value) in kinds]


class RunBuilder:
    """One run of a service; its traces follow one another in time."""

    def __init__(self, lake: LakeBuilder, service: str, version: str, instance: str, start_ns: int) -> None:
        self.lake, self.now_ns = lake, start_ns
        self.resource = {"service.name": service, "service.version": version, "service.instance.id": instance}
        self.resource = {key: value for key, value in self.resource.items() if value}

    def trace(self, root: Span, gap_ms: float = 1.0) -> str:
        """Adds the trace and returns its id."""
        trace_id = f"{next(self.lake.ids):032x}"
        self._place(trace_id, root, "", self.now_ns)
        self.now_ns += round((root.ms + gap_ms) * 1e6)
        return trace_id

    def _place(self, trace_id: str, spec: Span, parent_id: str, start_ns: int) -> None:
        span_id = spec.span_id or f"{next(self.lake.ids):016x}"
        attributes = spec.attributes
        self.lake.rows[lake_schema.TRACES].append(
            {
                **(spec.service or self)._common(start_ns, attributes),
                "Timestamp": start_ns // 1000,
                "TimestampUnixNano": start_ns,
                "TraceId": trace_id,
                "SpanId": span_id,
                "ParentSpanId": parent_id,
                "SpanName": spec.name,
                "SpanKind": spec.kind,
                "SpanAttributes": [(k, text_of(v)) for k, v in attributes.items()],
                "SpanAttributeTypes": types_of(attributes),
                "Duration": round(spec.ms * 1e6),
                "StatusCode": spec.status,
                "StatusMessage": "",
                "Events": [],
                "Links": [],
            }
        )
        cursor = start_ns
        for child in spec.children:
            begin = cursor if child.at_ms is None else start_ns + round(child.at_ms * 1e6)
            (spec.service or self)._place(trace_id, child, span_id, begin)
            cursor = begin + round(child.ms * 1e6)

    def event(self, name: str, trace_id: str = "", span_id: str = "", **attributes: Any) -> None:
        dotted = {key.replace("__", "."): value for key, value in attributes.items()}
        self.lake.rows[lake_schema.LOGS].append(
            {
                **self._common(self.now_ns, dotted),
                "Timestamp": self.now_ns // 1000,
                "TimestampUnixNano": self.now_ns,
                "ObservedTimestampUnixNano": self.now_ns,
                "TraceId": trace_id,
                "SpanId": span_id,
                "Body": "",
                "LogAttributes": [(k, text_of(v)) for k, v in dotted.items()],
                "LogAttributeTypes": types_of(dotted),
                "EventName": name,
            }
        )

    def _number(
        self, metric: str, value: float, at_s: float, attributes: dict[str, Any], start_ns: int = DAY_START_NS
    ) -> dict[str, Any]:
        time_ns = self.now_ns + round(at_s * 1e9)
        dotted = {key.replace("__", "."): v for key, v in attributes.items()}
        return {
            **self._common(time_ns, dotted),
            "MetricName": metric,
            "Attributes": [(k, text_of(v)) for k, v in dotted.items()],
            "StartTimeUnix": start_ns // 1000,
            "StartTimeUnixNano": start_ns,
            "TimeUnix": time_ns // 1000,
            "TimeUnixNano": time_ns,
            "Value": float(value),
        }

    def gauge(self, metric: str, value: float, at_s: float = 0.0, **attributes: Any) -> None:
        self.lake.rows[lake_schema.GAUGE].append(self._number(metric, value, at_s, attributes))

    def sum(
        self,
        metric: str,
        value: float,
        at_s: float = 0.0,
        temporality: int = 2,
        start_ns: int = DAY_START_NS,
        **attributes: Any,
    ) -> None:
        row = self._number(metric, value, at_s, attributes, start_ns)
        self.lake.rows[lake_schema.SUM].append({**row, "AggregationTemporality": temporality, "IsMonotonic": True})

    def histogram(
        self, metric: str, counts: list[int], bounds: list[float], total: float, at_s: float = 0.0, **attributes: Any
    ) -> None:
        """One cumulative point of a histogram with explicit bounds, as other SDKs send it (no minimum, no maximum)."""
        row = self._number(metric, 0.0, at_s, attributes)
        del row["Value"]
        more = {"Count": sum(counts), "Sum": total, "BucketCounts": counts, "ExplicitBounds": bounds}
        self.lake.rows[lake_schema.HISTOGRAM].append({**row, **more, "AggregationTemporality": 2})

    def exponential(
        self,
        metric: str,
        buckets: dict[int, int],
        scale: int,
        total: float,
        at_s: float = 0.0,
        zeros: int = 0,
        **attributes: Any,
    ) -> None:
        """One cumulative point of an exponential histogram: index -> count at `scale`."""
        row = self._number(metric, 0.0, at_s, attributes)
        del row["Value"]
        first, last = min(buckets), max(buckets)
        more = {
            "Count": sum(buckets.values()) + zeros,
            "Sum": total,
            "Scale": scale,
            "ZeroCount": zeros,
            "PositiveOffset": first,
            "PositiveBucketCounts": [buckets.get(index, 0) for index in range(first, last + 1)],
            "AggregationTemporality": 2,
        }
        self.lake.rows[lake_schema.EXPONENTIAL_HISTOGRAM].append({**row, **more})

    def _common(self, time_ns: int, attributes: dict[str, Any]) -> dict[str, Any]:
        everything = {**self.resource, **attributes}
        hot = {column: text_of(everything[name]) for name, column in HOT_COLUMNS.items() if name in everything}
        return {
            lake_schema.PARTITION: datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).date(),
            "ServiceName": self.resource.get("service.name", ""),
            "ResourceAttributes": list(self.resource.items()),
            **hot,
        }


class LakeBuilder:
    """Collects rows in the lake's schema and writes them as the collector does: Delta tables by date."""

    span = staticmethod(span)
    query = staticmethod(query)
    plugin = staticmethod(plugin)
    module_import = staticmethod(module_import)
    phase = staticmethod(phase)
    startup = staticmethod(startup)
    search = staticmethod(search)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids = itertools.count(1)
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in lake_schema.SCHEMAS}
        self._runs = itertools.count()

    def run(self, version: str = "1", *, service: str = "hub", instance: str | None = None) -> RunBuilder:
        """A new run, an hour after the one before."""
        number = next(self._runs)
        name = f"run-{number:03d}" if instance is None else instance
        return RunBuilder(self, service, version, name, DAY_START_NS + number * 3_600_000_000_000)

    def write(self) -> Path:
        """Writes what was added since the last call and returns the lake's path."""
        (self.path / ".state").mkdir(parents=True, exist_ok=True)
        for name, rows in self.rows.items():
            if rows:
                schema = lake_schema.SCHEMAS[name]
                columns = {
                    field.name: pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema
                }
                table = DeltaTable.create(
                    str(self.path / name),
                    schema,
                    mode="ignore",
                    partition_by=[lake_schema.PARTITION],
                    configuration={lake_schema.LAKE_VERSION_KEY: str(lake_schema.LAKE_VERSION)},
                    raise_if_key_not_exists=False,
                )
                write_deltalake(table, pa.table(columns, schema=schema), mode="append")
                rows.clear()
        return self.path


@pytest.fixture
def new_lake(tmp_path: Path) -> Callable[[], LakeBuilder]:
    """Makes empty lakes to describe."""
    numbers = itertools.count()
    return lambda: LakeBuilder(tmp_path / f"lake{next(numbers)}")


@pytest.fixture
def lake(new_lake: Callable[[], LakeBuilder]) -> LakeBuilder:
    """One empty lake to describe."""
    return new_lake()

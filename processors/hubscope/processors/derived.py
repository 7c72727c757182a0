"""Derived from the spans of a batch: `hub.plugin.overhead`, the time plugins added to each operation."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM
from hubscope.processors import rows
from hubscope.processors.batch import Batch
from hubscope.processors.columns import SpanColumns
from hubscope.processors.overhead import Overhead, is_entry, is_operation
from hubscope.processors.sketch import Sketch
from hubscope.processors.upstream import Upstream
from hubscope.processors.windows import Subject


class Derived:
    """One delta histogram point a service, version and plugin (and one for all plugins together) each batch."""

    name = "derived"

    def __init__(self, upstream: Upstream | None = None) -> None:
        self.upstream = upstream if upstream is not None else Upstream()
        self.overhead = Overhead()

    def __call__(self, batch: Batch) -> Batch:
        columns = SpanColumns.of(batch)
        if columns is None:
            return batch
        self._add_calls(columns)
        sketches: dict[tuple[Subject, str], Sketch] = {}
        times: dict[tuple[Subject, str], tuple[int, int]] = {}
        for span in self._operations(columns):
            subject = Subject(span["service"], span["version"])
            last = is_entry(span["kind"], span["parent"])
            added = self.overhead.operation(span["trace"], span["instance"], span["start"], span["end"], is_last=last)
            if not is_operation(span["name"], span["kind"], span["parent"], span["task"]):
                continue  # a start: its calls are done with, and are no overhead of an operation
            if span["end"] <= self.upstream.until(semconv.METRIC_PLUGIN_OVERHEAD, *subject):
                continue
            for plugin, seconds in added:
                key = (subject, plugin)
                sketches.setdefault(key, Sketch()).add(seconds, 1.0, span["end"])
                since, until = times.get(key, (span["start"], span["end"]))
                times[key] = (min(since, span["start"]), max(until, span["end"]))
        if not sketches:
            return batch
        points = [
            rows.distribution(
                semconv.METRIC_PLUGIN_OVERHEAD,
                subject.service,
                rows.resource_of(subject),
                {semconv.HUB_PLUGIN_ID: plugin} if plugin else {},
                *times[subject, plugin],
                sketch,
            )
            for (subject, plugin), sketch in sketches.items()
        ]
        return batch.with_derived(EXPONENTIAL_HISTOGRAM, rows.table(EXPONENTIAL_HISTOGRAM, points))

    def _add_calls(self, columns: SpanColumns) -> None:
        mask = pc.not_equal(columns.attribute(semconv.HUB_PLUGIN_ID), "")
        calls = pa.table(
            {
                "trace": columns.text("TraceId"),
                "instance": columns.instance,
                "plugin": columns.attribute(semconv.HUB_PLUGIN_ID),
                "start": columns.start_ns,
                "end": columns.end_ns,
            }
        ).filter(mask)
        for call in zip(*(column.to_pylist() for column in calls.columns), strict=True):
            self.overhead.call(*call)

    def _operations(self, columns: SpanColumns) -> list[dict[str, Any]]:
        """Operations, and starts, that ended in this batch and whose trace has plugin calls, in order of their end."""
        traces = pa.array(self.overhead.traces(), pa.string())
        called = pc.is_in(columns.text("TraceId"), value_set=traces)
        if not pc.any(called).as_py():
            return []
        found = pa.table(
            {
                "trace": columns.text("TraceId"),
                "parent": columns.text("ParentSpanId"),
                "name": columns.text("SpanName"),
                "kind": columns.text("SpanKind"),
                "task": columns.attribute(semconv.HUB_TASK_NAME),
                "instance": columns.instance,
                "service": columns.service,
                "version": columns.version,
                "start": columns.start_ns,
                "end": columns.end_ns,
            }
        ).filter(called)
        ours = pc.or_(
            pc.or_(pc.equal(found["parent"], ""), pc.not_equal(found["task"], "")),
            pc.is_in(found["kind"], value_set=pa.array(["Server", "Consumer"])),
        )
        ended: list[dict[str, Any]] = found.filter(ours).sort_by("end").to_pylist()
        return ended

    def snapshot(self) -> dict[str, Any]:
        return self.overhead.snapshot()

    def restore(self, state: dict[str, Any] | None) -> None:
        self.overhead.restore(state)

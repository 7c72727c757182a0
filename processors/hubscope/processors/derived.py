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
from hubscope.processors.overhead import Overhead, is_operation
from hubscope.processors.sketch import Sketch
from hubscope.processors.windows import Subject


class Derived:
    """One delta histogram point a service, version and plugin (and one for all plugins together) each batch."""

    name = "derived"

    def __init__(self) -> None:
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
            added = self.overhead.operation(span["trace"], span["start"], span["end"], is_root=not span["parent"])
            for plugin, seconds in added:
                key = (subject, plugin)
                sketches.setdefault(key, Sketch()).add(seconds, 1.0, span["end"])
                first, last = times.get(key, (span["start"], span["end"]))
                times[key] = (min(first, span["start"]), max(last, span["end"]))
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
                "plugin": columns.attribute(semconv.HUB_PLUGIN_ID),
                "start": columns.start_ns,
                "end": columns.end_ns,
            }
        ).filter(mask)
        for trace, plugin, start, end in zip(*(calls.column(n).to_pylist() for n in range(4)), strict=True):
            self.overhead.call(trace, plugin, start, end)

    def _operations(self, columns: SpanColumns) -> list[dict[str, Any]]:
        """Operations that ended in this batch and whose trace has plugin calls, in the order in which they ended."""
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
        ended = found.filter(ours).sort_by("end").to_pylist()
        return [s for s in ended if is_operation(s["name"], s["kind"], s["parent"], s["task"])]

    def snapshot(self) -> dict[str, Any]:
        return self.overhead.snapshot()

    def restore(self, state: dict[str, Any] | None) -> None:
        self.overhead.restore(state)

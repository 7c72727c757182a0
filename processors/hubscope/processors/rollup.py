"""What every series did in a minute: rows of `hub_rollup` from a batch's spans and its KPI values.

Rows of one minute come from several segments and are added up by whoever reads them, and by the lake's merges. So the
processor has no memory: a replay gives the same rows, in the same transaction.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from hubscope import semconv
from hubscope.lake_rollup import MINUTE_NS, bucket_of, roll
from hubscope.lake_schema import GAUGE, ROLLUP
from hubscope.processors.batch import Batch
from hubscope.processors.columns import SpanColumns

_SPAN_KEYS = (
    "ServiceName",
    "ServiceVersion",
    "ServiceInstanceId",
    "SpanName",
    "SpanKind",
    "DbQuerySummary",
    "PluginId",
    "PluginHook",
    "TaskName",
)


class Rollup:
    """Last of the processors, for it also takes what the others derive."""

    name = "rollup"

    def __call__(self, batch: Batch) -> Batch:
        spans = SpanColumns.of(batch)
        if spans is not None:
            batch = batch.with_derived(ROLLUP, _of_spans(spans))
        for points in batch.rows(GAUGE):  # those that came derived, too
            points = points.filter(pc.equal(points["MetricName"], semconv.METRIC_KPI))
            if points.num_rows:
                batch = batch.with_derived(ROLLUP, _of_kpis(points))
        return batch


def _of_spans(spans: SpanColumns) -> pa.Table:
    failed = pc.cast(pc.equal(spans.text("StatusCode"), "Error"), pa.int64())
    keys = {name: spans.encoded(name) for name in _SPAN_KEYS}
    return roll(keys, _values(spans.start_ns, spans.duration_s, failed))


def _of_kpis(points: pa.Table) -> pa.Table:
    attributes = _whole(points["Attributes"])
    status = pc.map_lookup(attributes, semconv.HUB_KPI_STATUS, "first")
    keys = {name: _whole(points[name]) for name in ("ServiceName", "ServiceVersion", "ServiceInstanceId")}
    keys["MetricName"] = _whole(points["MetricName"])
    keys["KpiName"] = pc.map_lookup(attributes, semconv.HUB_KPI_NAME, "first")
    failed = pc.cast(pc.fill_null(pc.equal(status, "fail"), False), pa.int64())
    return roll(keys, _values(_whole(points["TimeUnixNano"]), _whole(points["Value"]), failed))


def _values(times_ns: pa.Array, values: pa.Array, failed: pa.Array) -> dict[str, pa.Array]:
    return {
        "minute": pc.multiply(pc.divide(times_ns, MINUTE_NS), MINUTE_NS),
        "bucket": bucket_of(values),
        "count": pa.repeat(pa.scalar(1, pa.int64()), len(values)),
        "errors": failed,
        "total": values,
        "low": values,
        "high": values,
    }


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()

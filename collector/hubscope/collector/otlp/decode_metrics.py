"""ExportMetricsServiceRequests to rows of the five `otel_metrics_…` tables, by whole columns. A row is a data point."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hubscope.collector.otlp.attributes import MAP, Added, Attributes, attributes
from hubscope.collector.otlp.decode_common import (
    Above,
    Exact,
    day,
    hex_ids,
    hot_columns,
    microseconds,
    parents_of,
    resource_and_scope,
    same_lists,
    walk,
    whole,
)
from hubscope.collector.otlp.decode_values import OverlappingKindsError
from hubscope.lake_schema import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SCHEMAS, SUM, SUMMARY, TYPE_PREFIX

# The oneof's member -> the table of its points.
KINDS: Final = {
    "gauge": GAUGE,
    "sum": SUM,
    "histogram": HISTOGRAM,
    "exponential_histogram": EXPONENTIAL_HISTOGRAM,
    "summary": SUMMARY,
}


class _Points(NamedTuple):
    """The data points of one kind, and the metric that each is of."""

    above: Above
    data: pa.StructArray  # the metrics' gauge, sum, … (null where a metric is of another kind)
    point: pa.StructArray
    metric_of_point: Any  # int64[points]
    exact: Exact
    added: Added


def data_points(requests: pa.RecordBatch, added: Added = ()) -> dict[str, pa.Table]:
    """Table name -> rows, for the kinds that have data points. Raises OverlappingKindsError as `texts` does."""
    above = walk(requests.column("resource_metrics"), "scope_metrics", "metrics")
    metric = above.rows
    kinds = sum(pc.is_valid(metric.field(kind)).to_numpy(zero_copy_only=False).astype(np.int8) for kind in KINDS)
    if len(metric) and int(np.max(kinds)) > 1:
        raise OverlappingKindsError("a metric of two kinds")
    tables = {}
    for kind, table_name in KINDS.items():
        data = metric.field(kind)
        lists = data.field("data_points")
        if len(lists.flatten()):
            points = _Points(above, data, lists.flatten(), parents_of(lists), Exact(), added)
            tables[table_name] = _table(table_name, points)
    return tables


def _table(table_name: str, points: _Points) -> pa.Table:
    columns = _of_kind(table_name, points)  # before the attributes: it fills `exact`
    columns |= _of_every_kind(points)
    schema = SCHEMAS[table_name]
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _of_every_kind(points: _Points) -> dict[str, pa.Array]:
    point, metric, exact = points.point, points.above.rows, points.exact
    of_point = attributes(point.field("attributes"))
    start = exact.int64("StartTimeUnixNano", point.field("start_time_unix_nano"))
    end = exact.int64("TimeUnixNano", point.field("time_unix_nano"))
    time = microseconds(end)
    values, types = of_point.with_extra(exact.extra)
    by_metric = pa.array(points.metric_of_point)
    return {
        "Date": day(time),
        **resource_and_scope(points.above, points.above.scope_of_row[points.metric_of_point], points.added),
        "MetricName": metric.field("name").take(by_metric),
        "MetricDescription": metric.field("description").take(by_metric),
        "MetricUnit": metric.field("unit").take(by_metric),
        "MetricMetadata": _metadata(metric.field("metadata")).take(by_metric),
        "Attributes": values,
        "AttributeTypes": types,
        "StartTimeUnix": microseconds(start),
        "StartTimeUnixNano": start,
        "TimeUnix": time,
        "TimeUnixNano": end,
        "Flags": whole(point.field("flags")),
        **hot_columns(of_point),
    }


def _metadata(lists: pa.ListArray) -> pa.MapArray:
    """Metadata with the types of the values that are no strings in the same map; nearly all are strings."""
    found = attributes(lists)
    if not len(found.types.keys):
        return found.values
    types = [{TYPE_PREFIX + key: name for key, name in entries} for entries in found.types.to_pylist()]
    values = found.values.to_pylist()
    merged = [list({**dict(entries), **more}.items()) for entries, more in zip(values, types, strict=True)]
    return pa.array(merged, MAP)


def _of_kind(table_name: str, points: _Points) -> dict[str, pa.Array]:
    if table_name == GAUGE:
        return _number(points)
    if table_name == SUM:
        monotonic = points.data.field("is_monotonic").take(pa.array(points.metric_of_point))
        return {**_number(points), "AggregationTemporality": _temporality(points), "IsMonotonic": monotonic}
    if table_name == HISTOGRAM:
        return {
            **_distribution(points),
            "BucketCounts": points.exact.int64_lists("BucketCounts", points.point.field("bucket_counts")),
            "ExplicitBounds": _relisted(points.point.field("explicit_bounds")),
        }
    if table_name == EXPONENTIAL_HISTOGRAM:
        return _exponential(points)
    return _summary(points)


def _number(points: _Points) -> dict[str, pa.Array]:
    value, integer = _value(points.point)
    return {"Value": value, "ValueInt": integer, "Exemplars": _exemplars(points.point.field("exemplars"))}


def _value(holder: pa.StructArray) -> tuple[pa.Array, pa.Array]:
    """`as_double` and `as_int`: the value as a double either way (null where none was sent), and the integer."""
    double, integer = holder.field("as_double"), holder.field("as_int")
    if bool(pc.any(pc.and_(double.is_valid(), integer.is_valid())).as_py()):
        raise OverlappingKindsError("a number with two values")
    return pc.coalesce(double, integer.cast(pa.float64(), safe=False)), integer


def _distribution(points: _Points) -> dict[str, pa.Array]:
    point = points.point
    return {
        "Count": points.exact.int64("Count", point.field("count")),
        "Sum": point.field("sum"),
        "Min": point.field("min"),
        "Max": point.field("max"),
        "Exemplars": _exemplars(point.field("exemplars")),
        "AggregationTemporality": _temporality(points),
    }


def _exponential(points: _Points) -> dict[str, pa.Array]:
    point, exact = points.point, points.exact
    positive, negative = point.field("positive"), point.field("negative")
    return {
        **_distribution(points),
        "Scale": point.field("scale"),
        "ZeroCount": exact.int64("ZeroCount", point.field("zero_count")),
        "ZeroThreshold": point.field("zero_threshold"),
        "PositiveOffset": positive.field("offset"),
        "PositiveBucketCounts": exact.int64_lists("PositiveBucketCounts", positive.field("bucket_counts")),
        "NegativeOffset": negative.field("offset"),
        "NegativeBucketCounts": exact.int64_lists("NegativeBucketCounts", negative.field("bucket_counts")),
    }


def _summary(points: _Points) -> dict[str, pa.Array]:
    point = points.point
    lists = point.field("quantile_values")
    quantile = lists.flatten()
    fields = list(SCHEMAS[SUMMARY].field("ValueAtQuantiles").type.value_type)
    members = pa.StructArray.from_arrays([quantile.field("quantile"), quantile.field("value")], fields=fields)
    return {
        "Count": points.exact.int64("Count", point.field("count")),
        "Sum": point.field("sum"),
        "ValueAtQuantiles": same_lists(lists, members),
    }


def _temporality(points: _Points) -> pa.Array:
    return points.data.field("aggregation_temporality").take(pa.array(points.metric_of_point))


def _relisted(lists: pa.ListArray) -> pa.ListArray:
    return same_lists(lists, lists.flatten())


def _exemplars(lists: pa.ListArray) -> pa.ListArray:
    exemplar = lists.flatten()
    exact = Exact()
    time = exact.int64("TimeUnixNano", exemplar.field("time_unix_nano"))
    of_exemplar: Attributes = attributes(exemplar.field("filtered_attributes"))
    values, types = of_exemplar.with_extra(exact.extra)
    value, integer = _value(exemplar)
    fields = list(SCHEMAS[GAUGE].field("Exemplars").type.value_type)
    columns = [
        values,
        types,
        microseconds(time),
        time,
        value,
        integer,
        hex_ids(exemplar.field("span_id")),
        hex_ids(exemplar.field("trace_id")),
    ]
    return same_lists(lists, pa.StructArray.from_arrays(columns, fields=fields))

"""Metrics as an ExportMetricsServiceRequest (opentelemetry/proto/metrics/v1/metrics.proto)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hubscope.exporters.encoding import losses, points, stock
from hubscope.exporters.encoding.groups import ITEM, Encoded, Groups, encoded
from hubscope.exporters.encoding.values import utf8
from hubscope.exporters.encoding.wire import LENGTH, VARINT, field, heads, tag, varint

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

# Metric
_NAME: Final = tag(1, LENGTH)
_DESCRIPTION: Final = tag(2, LENGTH)
_UNIT: Final = tag(3, LENGTH)
# Gauge, Sum, Histogram, ExponentialHistogram
_POINT: Final = tag(1, LENGTH)
_POINT_HEADS: Final = heads(_POINT)
_TEMPORALITY: Final = tag(2, VARINT)
_MONOTONIC: Final = tag(3, VARINT) + b"\x01"

# By the class's name: the encoder imports no SDK, and one that has the fields is one of these.
_KINDS: Final[dict[str, tuple[bytes, Callable[[Any], bytes]]]] = {
    "Gauge": (tag(5, LENGTH), points.gauge),
    "Sum": (tag(7, LENGTH), points.total),
    "Histogram": (tag(9, LENGTH), points.histogram),
    "ExponentialHistogram": (tag(10, LENGTH), points.exponential_histogram),
}

# Name, description and unit as they stand before the data: 1,024 instruments are about 0.2 MB. One too many, and all
# are learnt again.
MAX_METRICS: Final = 1024
_heads: Final[dict[tuple[Any, Any, Any], bytes]] = {}


def encode_metrics(data: MetricsData) -> Encoded:
    """The request of these metrics, whose `items` are data points.

    A data point that cannot be written is left out, counted in `losses` and named once by its metric.
    """
    groups = Groups()
    items = left_out = 0
    whole: list[bytes] = []
    for resource_metrics in data.resource_metrics:
        resource = resource_metrics.resource
        for scope_metrics in resource_metrics.scope_metrics:
            append = groups.items_of(resource, scope_metrics.scope).append
            for metric in scope_metrics.metrics:
                try:
                    content, written, lost = _metric(metric)
                    if written or not lost:
                        append(ITEM + varint(len(content)))
                        append(content)
                except Exception as error:  # noqa: BLE001 - whatever an odd metric raises, the others are sent
                    written, lost = _points_of(metric), 0
                    try:
                        whole.append(stock.metrics(resource, scope_metrics.scope, metric))
                    except Exception:  # noqa: BLE001 - nobody can write it
                        losses.left_out("metric", getattr(metric, "name", type(metric).__name__), error)
                        written, lost = 0, written
                items += written
                left_out += lost
    return encoded(groups, items, left_out, whole)


def _points_of(metric: Any) -> int:
    """How many data points a metric has of which nothing else is known: at least one."""
    try:
        return len(metric.data.data_points)
    except (AttributeError, TypeError):
        return 1


def _metric(metric: Any) -> tuple[bytes, int, int]:
    """The content of a Metric, and how many data points were written and left out."""
    data = metric.data
    tag_of_kind, point = _KINDS[type(data).__name__]
    parts: list[bytes] = []
    append = parts.append
    lost = 0
    for data_point in data.data_points:
        try:
            content = point(data_point)
            size = len(content)
            append(_POINT_HEADS[size] if size < 1024 else _POINT + varint(size))
            append(content)
        except Exception as error:  # noqa: BLE001 - whatever an odd point raises, the others are sent
            lost += 1
            losses.left_out("data point of", metric.name, error)
    written = len(parts) // 2
    head = _head(metric.name, metric.description, metric.unit)
    if not written:
        return head, 0, lost  # as the stock encoder has it: a metric without points has no kind
    temporality = getattr(data, "aggregation_temporality", 0)
    if temporality:
        parts.append(_TEMPORALITY + varint(temporality))
    if getattr(data, "is_monotonic", False):
        parts.append(_MONOTONIC)
    content = b"".join(parts)
    return b"".join((head, tag_of_kind, varint(len(content)), content)), written, lost


def _head(name: Any, description: Any, unit: Any) -> bytes:
    head = _heads.get((name, description, unit))
    if head is None:
        texts = ((_NAME, name), (_DESCRIPTION, description), (_UNIT, unit))
        head = b"".join([field(tag, utf8(text)) for tag, text in texts if text])
        if len(_heads) >= MAX_METRICS:
            _heads.clear()
        if len(head) <= 1024:
            _heads[name, description, unit] = head
    return head

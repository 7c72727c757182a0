"""The stock encoder, for an item that ours cannot read: an SDK newer than this, or an object that only looks like one.

It is imported when first needed (it brings protobuf) and may be absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def spans(items: Sequence[Any]) -> bytes:
    """A whole request of these spans. Raises whatever the stock encoder does, or ImportError."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return encode_spans(items).SerializeToString()


def logs(items: Sequence[Any]) -> bytes:
    """A whole request of these log records. Raises whatever the stock encoder does, or ImportError."""
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    return encode_logs(items).SerializeToString()


def metrics(resource: Any, scope: Any, metric: Any) -> bytes:
    """A whole request of one metric. Raises whatever the stock encoder does, or ImportError."""
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics

    scopes = [ScopeMetrics(scope, [metric], scope.schema_url)]
    request = encode_metrics(MetricsData([ResourceMetrics(resource, scopes, resource.schema_url)]))
    if request.resource_metrics[0].scope_metrics[0].metrics[0].WhichOneof("data") is None:
        raise TypeError(f"no encoder knows points of {type(metric.data).__name__}")
    return request.SerializeToString()

"""The three OTLP requests: how each is called on either transport, validated and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hubscope.collector.log.wal import Signal
from hubscope.collector.otlp.forms import COUNTED
from hubscope.collector.otlp.ids import check_ids
from hubscope.collector.otlp.large import LARGE_BYTES, count_large
from hubscope.errors import BadInputError


class Kind(NamedTuple):
    """One of the three requests."""

    signal: Signal
    items: str  # what its counters count, in the stock Collector's words
    http_path: str
    grpc_service: str
    message: type[Message]
    count: Callable[[Any], int]


def _spans(request: Any) -> int:
    return sum([len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans])


def _metric_points(request: Any) -> int:
    points = 0
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind is not None:
                    points += len(getattr(metric, kind).data_points)
    return points


def _log_records(request: Any) -> int:
    return sum([len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs])


KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        Signal.TRACES,
        "spans",
        "/v1/traces",
        "opentelemetry.proto.collector.trace.v1.TraceService",
        ExportTraceServiceRequest,
        _spans,
    ),
    Kind(
        Signal.METRICS,
        "metric_points",
        "/v1/metrics",
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        ExportMetricsServiceRequest,
        _metric_points,
    ),
    Kind(
        Signal.LOGS,
        "log_records",
        "/v1/logs",
        "opentelemetry.proto.collector.logs.v1.LogsService",
        ExportLogsServiceRequest,
        _log_records,
    ),
)


def count_items(kind: Kind, payload: bytes) -> int:
    """How many spans, points or log records an OTLP protobuf request holds; 0 is a good request too.

    Raises BadInputError for bytes that are no such request, for values nested beyond the parser's 100 levels, and for
    ids of a wrong length.
    """
    try:
        if len(payload) > LARGE_BYTES:
            return count_large(kind.message.DESCRIPTOR, payload)
        check_ids(kind.message, payload)  # parses all of it
        return kind.count(COUNTED[kind.message.DESCRIPTOR.full_name].FromString(payload))
    except DecodeError:
        raise BadInputError(
            f"the {len(payload)} B are not a valid {kind.message.DESCRIPTOR.name} in protobuf",
            "wrong or truncated data, text that is not UTF-8, or values nested more than 100 levels deep",
        ) from None

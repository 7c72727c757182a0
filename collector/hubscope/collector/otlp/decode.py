"""OTLP requests to rows of the lake: protobuf to Arrow by ptars, then whole columns; never span by span in Python.

What stands where: ids as lower-case hexadecimal text ('' for none); `ServiceName` '' where the resource names no
service, as the Collector's ClickHouse exporter has it; an enum number without a name as decimal text; numbers that an
int64 cannot hold as `decode_common.Exact` says. A resource's entity references are not kept: they point at resource
attributes, which are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ptars import HandlerPool

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode_logs import log_records
from hubscope.collector.otlp.decode_metrics import data_points
from hubscope.collector.otlp.decode_traces import spans
from hubscope.collector.otlp.decode_values import OverlappingKindsError
from hubscope.errors import BadInputError
from hubscope.lake_schema import LOGS, TRACES

Request = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest

MESSAGES: Final[dict[Signal, type[Request]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
# Requests are decoded in groups of about this size: large enough that a call's fixed cost (1 ms) is nothing, small
# enough that a group's columns stay far from Arrow's 2 GiB offsets and near the processor's caches.
GROUP_BYTES: Final = 4 << 20

_pool = HandlerPool([message.DESCRIPTOR.file for message in MESSAGES.values()])


def decode(records: Iterable[Record]) -> dict[str, pa.Table]:
    """Table name -> rows in `lake_schema.SCHEMAS`, in the order of the records; only tables that got rows.

    Raises BadInputError for bytes that are no OTLP request, and for one that would take too much memory.
    """
    parts: dict[str, list[pa.Table]] = {}
    for signal, payloads in _groups(records):
        for name, rows in _decode_group(signal, payloads).items():
            if rows.num_rows:
                parts.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def _groups(records: Iterable[Record]) -> Iterator[tuple[Signal, list[bytes]]]:
    waiting: dict[Signal, list[bytes]] = {}
    sizes: dict[Signal, int] = {}
    for record in records:
        waiting.setdefault(record.signal, []).append(record.payload)
        sizes[record.signal] = sizes.get(record.signal, 0) + len(record.payload)
        if sizes[record.signal] >= GROUP_BYTES:
            yield record.signal, waiting.pop(record.signal)
            del sizes[record.signal]
    yield from waiting.items()


def _decode_group(signal: Signal, payloads: list[bytes]) -> dict[str, pa.Table]:
    try:
        return _flatten(signal, payloads)
    except OverlappingKindsError:
        # Legal on the wire and made by no known sender: let protobuf say which of the two counts.
        message = MESSAGES[signal]
        return _flatten(signal, [message.FromString(p).SerializeToString() for p in payloads])


def _flatten(signal: Signal, payloads: list[bytes]) -> dict[str, pa.Table]:
    try:
        requests = _pool.get_for_message(MESSAGES[signal].DESCRIPTOR).list_to_record_batch(payloads)
    except ValueError as error:
        raise BadInputError(f"not an OTLP {signal.name.lower()} request: {error}", "send OTLP protobuf") from error
    if signal is Signal.TRACES:
        return {TRACES: spans(requests)}
    if signal is Signal.LOGS:
        return {LOGS: log_records(requests)}
    return data_points(requests)

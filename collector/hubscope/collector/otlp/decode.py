"""OTLP requests to rows of the lake: protobuf to Arrow by ptars, then whole columns; never span by span in Python.

What stands where: ids as lower-case hexadecimal text ('' for none); `ServiceName` '' where the resource names no
service, as the Collector's ClickHouse exporter has it; an enum number without a name as decimal text; numbers that an
int64 cannot hold as `decode_common.Exact` says. A resource's entity references are not kept: they point at resource
attributes, which are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ptars import HandlerPool

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.attributes import Added
from hubscope.collector.otlp.decode_logs import log_records
from hubscope.collector.otlp.decode_metrics import data_points
from hubscope.collector.otlp.decode_traces import spans
from hubscope.collector.otlp.decode_values import OverlappingKindsError
from hubscope.collector.otlp.forms import STORED
from hubscope.errors import BadInputError
from hubscope.lake_schema import LOGS, TRACES
from hubscope.processors.arriving import Arriving, Suspects, leaves, mend, mend_all

Request = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest

MESSAGES: Final[dict[Signal, type[Request]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
# Requests are decoded in groups of about this size. A group costs 11 ms whatever its size (ptars, redaction and
# flattening are a thousand small calls): groups of 4 MiB take 0.27 µs a span more; whole segments 0.2 less, and 75 MiB.
GROUP_BYTES: Final = 8 << 20

_stored: Final = {signal: STORED[message.DESCRIPTOR.full_name].DESCRIPTOR for signal, message in MESSAGES.items()}
_pool = HandlerPool([descriptor.file for descriptor in _stored.values()])


class Decoded(NamedTuple):
    """What requests became."""

    tables: dict[str, pa.Table]
    changed: dict[int, bytes]  # index of a request -> its bytes as the processors of what arrives left them


def decode(records: Iterable[Record]) -> dict[str, pa.Table]:
    """Table name -> rows in `lake_schema.SCHEMAS`, in the order of the records; only tables that got rows.

    Raises BadInputError for bytes that are no OTLP request, and for one that would take too much memory.
    """
    return decode_arriving(records, ()).tables


def decode_arriving(records: Iterable[Record], processors: Sequence[Arriving], added: Added = ()) -> Decoded:
    """The same, after the processors of what arrives have changed what they have to.

    `added` are attributes of every resource that has none of their key; the requests' bytes stay without them.
    """
    parts: dict[str, list[pa.Table]] = {}
    changed: dict[int, bytes] = {}
    for signal, indices, payloads in _groups(records):
        columns = _columns(signal, payloads)
        mended = _mended(signal, payloads, columns, processors) if processors else {}
        if mended:
            changed |= {indices[number]: payload for number, payload in mended.items()}
            payloads = [mended.get(number, payload) for number, payload in enumerate(payloads)]
            columns = _columns(signal, payloads)
        for name, rows in _decode_group(signal, payloads, columns, added).items():
            if rows.num_rows:
                parts.setdefault(name, []).append(rows)
    return Decoded({name: pa.concat_tables(tables) for name, tables in parts.items()}, changed)


def mend_payload(signal: Signal, payload: bytes, processors: Sequence[Arriving]) -> bytes:
    """A request's bytes as the processors leave them, without its columns: for one that cannot be decoded.

    Raises DecodeError for bytes that are no such request.
    """
    request = MESSAGES[signal].FromString(payload)
    return request.SerializeToString() if mend_all(request, processors) else payload


def _groups(records: Iterable[Record]) -> Iterator[tuple[Signal, list[int], list[bytes]]]:
    waiting: dict[Signal, tuple[list[int], list[bytes]]] = {}
    sizes: dict[Signal, int] = {}
    for index, record in enumerate(records):
        indices, payloads = waiting.setdefault(record.signal, ([], []))
        indices.append(index)
        payloads.append(record.payload)
        sizes[record.signal] = sizes.get(record.signal, 0) + len(record.payload)
        if sizes[record.signal] >= GROUP_BYTES:
            yield record.signal, *waiting.pop(record.signal)
            del sizes[record.signal]
    for signal, (indices, payloads) in waiting.items():
        yield signal, indices, payloads


def _mended(
    signal: Signal, payloads: list[bytes], requests: pa.RecordBatch, processors: Sequence[Arriving]
) -> dict[int, bytes]:
    """Number of a payload -> what the processors made of it, of those that they changed."""
    columns, request_of_row = leaves(requests)
    suspects = Suspects()
    for processor in processors:
        processor.suspects(columns, suspects)
    rows: dict[int, list[int]] = {number: [] for number in suspects.requests}
    first_row = np.searchsorted(request_of_row, np.arange(len(payloads)))
    for row in sorted(suspects.rows):
        number = int(request_of_row[row])
        rows.setdefault(number, []).append(row - int(first_row[number]))
    mended = {}
    for number, ordinals in rows.items():
        request = MESSAGES[signal].FromString(payloads[number])
        if mend(request, number in suspects.requests, ordinals, processors):
            mended[number] = request.SerializeToString()
    return mended


def _decode_group(signal: Signal, payloads: list[bytes], columns: pa.RecordBatch, added: Added) -> dict[str, pa.Table]:
    try:
        return _flatten(signal, columns, added)
    except OverlappingKindsError:
        # Legal on the wire and made by no known sender: let protobuf say which of the two counts.
        return _flatten(signal, _columns(signal, [_rewritten(signal, payload) for payload in payloads]), added)


def _columns(signal: Signal, payloads: list[bytes]) -> pa.RecordBatch:
    decode_all = _pool.get_for_message(_stored[signal]).list_to_record_batch
    try:
        try:
            return decode_all(payloads)
        except ValueError:
            # The two parsers differ in what they pass over: protobuf's takes a field 0 inside an unknown group.
            return decode_all([_rewritten(signal, payload) for payload in payloads])
    except (ValueError, DecodeError) as error:
        raise BadInputError(f"not an OTLP {signal.name.lower()} request: {error}", "send OTLP protobuf") from error


def _rewritten(signal: Signal, payload: bytes) -> bytes:
    """The request as protobuf understands it, without what it does not know. Raises DecodeError."""
    request = MESSAGES[signal].FromString(payload)
    request.DiscardUnknownFields()
    return request.SerializeToString()


def _flatten(signal: Signal, requests: pa.RecordBatch, added: Added) -> dict[str, pa.Table]:
    if signal is Signal.TRACES:
        return {TRACES: spans(requests, added)}
    if signal is Signal.LOGS:
        return {LOGS: log_records(requests, added)}
    return data_points(requests, added)

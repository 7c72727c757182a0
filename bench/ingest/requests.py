"""The load: export requests of spans and of metric points, with new ids and times at every use.

Spans are about 365 B with seven attributes, in traces of eight, 64 traces a request. A pool of requests is built once;
`fresh` copies one and writes random ids and the present time into it, which takes 0.2 us a span, so that the generator
takes little of the cores it shares with the server and no two spans are alike.
"""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple

import numpy as np

TRACES_PER_REQUEST = 64
SPANS_PER_TRACE = 8
SPANS_PER_REQUEST = TRACES_PER_REQUEST * SPANS_PER_TRACE
SERIES_PER_REQUEST = 500
POOL = 64


class Template(NamedTuple):
    """A request and where its ids and times stand in it."""

    body: Any  # uint8[bytes]
    trace_ids: Any  # int64[traces, spans, 16]: positions
    root_ids: Any  # int64[traces, spans, 8]: the root's own id, and the others' parent ids
    child_ids: Any  # int64[traces, spans - 1, 8]
    starts: Any  # int64[spans, 8]
    ends: Any  # int64[spans, 8]
    duration_ns: Any  # int64[spans]


def build_request(chance: random.Random, now_ns: int) -> tuple[bytes, str]:
    """One export request of spans, and the id of its last trace."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in (("service.name", "bench"), ("service.version", "1.0.0"), ("service.instance.id", "bench-1")):
        group.resource.attributes.add(key=key).value.string_value = value
    scope = group.scope_spans.add()
    scope.scope.name = "bench.ingest"
    trace_id = b""
    for _ in range(TRACES_PER_REQUEST):
        trace_id, parent_id = chance.randbytes(16), b""
        for position in range(SPANS_PER_TRACE):
            span_id = chance.randbytes(8)
            duration_ns = int(chance.lognormvariate(15, 1))
            span = scope.spans.add(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=parent_id,
                name=("GET /memories", "SELECT memories", "plugin summarise on_query", "search memories")[position % 4],
                kind=2 if not parent_id else 1,
                start_time_unix_nano=now_ns,
                end_time_unix_nano=now_ns + duration_ns,
            )
            parent_id = parent_id or span_id
            for key, value in (
                ("db.system.name", "sqlite"),
                ("db.collection.name", "memories"),
                ("db.query.text", "SELECT id, text FROM memories WHERE persona = ? ORDER BY created DESC LIMIT ?"),
                ("db.query.summary", "SELECT memories"),
                ("hub.persona.id", f"persona-{chance.randrange(10)}"),
            ):
                span.attributes.add(key=key).value.string_value = value
            span.attributes.add(key="db.response.returned_rows").value.int_value = chance.randrange(1000)
            span.attributes.add(key="thread.id").value.int_value = 140_000_000_000 + chance.randrange(8)
    return request.SerializeToString(), trace_id.hex()


def template(chance: random.Random) -> Template:
    """A request of spans to make others of."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    body, _ = build_request(chance, time.time_ns())
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    positions: dict[str, list[Any]] = {"trace": [], "root": [], "child": [], "start": [], "end": []}
    at = 0
    for index, span in enumerate(spans):
        at = body.index(span.trace_id, at)
        positions["trace"].append(np.arange(at, at + 16))
        at = body.index(span.span_id, at + 16)
        positions["root" if index % SPANS_PER_TRACE == 0 else "child"].append(np.arange(at, at + 8))
        if span.parent_span_id:
            at = body.index(span.parent_span_id, at + 8)
            positions["root"].append(np.arange(at, at + 8))
        for name, number in (("start", span.start_time_unix_nano), ("end", span.end_time_unix_nano)):
            at = body.index(number.to_bytes(8, "little"), at)
            positions[name].append(np.arange(at, at + 8))
            at += 8
    return Template(
        np.frombuffer(body, np.uint8),
        np.array(positions["trace"]).reshape(TRACES_PER_REQUEST, SPANS_PER_TRACE, 16),
        np.array(positions["root"]).reshape(TRACES_PER_REQUEST, SPANS_PER_TRACE, 8),
        np.array(positions["child"]).reshape(TRACES_PER_REQUEST, SPANS_PER_TRACE - 1, 8),
        np.array(positions["start"]),
        np.array(positions["end"]),
        np.array([span.end_time_unix_nano - span.start_time_unix_nano for span in spans]),
    )


def fresh(of: Template, numbers: np.random.Generator) -> tuple[bytes, str]:
    """A request with ids that never were before, that began within the last millisecond, and its last trace's id."""
    body = of.body.copy()
    trace_ids = numbers.bytes(16 * TRACES_PER_REQUEST)
    body[of.trace_ids] = np.frombuffer(trace_ids, np.uint8).reshape(-1, 1, 16)
    body[of.root_ids] = np.frombuffer(numbers.bytes(8 * TRACES_PER_REQUEST), np.uint8).reshape(-1, 1, 8)
    body[of.child_ids] = np.frombuffer(numbers.bytes(of.child_ids.size), np.uint8).reshape(of.child_ids.shape)
    start_ns = time.time_ns() - np.sort(numbers.integers(0, 1_000_000, SPANS_PER_REQUEST))[::-1]
    body[of.starts] = start_ns.astype("<u8").view(np.uint8).reshape(-1, 8)
    body[of.ends] = (start_ns + of.duration_ns).astype("<u8").view(np.uint8).reshape(-1, 8)
    return body.tobytes(), trace_ids[-16:].hex()


def build_json(chance: random.Random) -> bytes:
    """The same spans as OTLP/JSON, as a browser or a JavaScript SDK sends them."""
    import base64
    import json

    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(build_request(chance, time.time_ns())[0])
    document = MessageToDict(request, use_integers_for_enums=True)
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = base64.b64decode(span[name]).hex()
    return json.dumps(document, separators=(",", ":")).encode()


def build_metrics(chance: random.Random, now_ns: int) -> bytes:
    """One request of 500 points: half sums, a quarter gauges, a quarter exponential histograms, of 5 attributes."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for key, value in (("service.name", "bench"), ("service.version", "1.0.0"), ("service.instance.id", "bench-1")):
        group.resource.attributes.add(key=key).value.string_value = value
    metrics = group.scope_metrics.add().metrics
    count = metrics.add(name="bench.requests", unit="{request}")
    count.sum.aggregation_temporality, count.sum.is_monotonic = 2, True
    level = metrics.add(name="bench.memory", unit="By")
    duration = metrics.add(name="bench.duration", unit="s")
    duration.exponential_histogram.aggregation_temporality = 1
    for series in range(SERIES_PER_REQUEST):
        if series % 2:
            point: Any = count.sum.data_points.add(as_int=chance.randrange(1 << 40))
        elif series % 4:
            point = level.gauge.data_points.add(as_double=chance.random() * 1e9)
        else:
            point = duration.exponential_histogram.data_points.add(count=40, sum=chance.random(), scale=4)
            point.positive.offset = -60
            point.positive.bucket_counts.extend(chance.randrange(4) for _ in range(20))
        point.start_time_unix_nano, point.time_unix_nano = now_ns - 60 * 10**9, now_ns
        for key, value in (
            ("http.request.method", "GET"),
            ("http.route", f"/memories/{series % 50}"),
            ("server.address", "localhost"),
            ("hub.persona.id", f"persona-{series % 10}"),
        ):
            point.attributes.add(key=key).value.string_value = value
        point.attributes.add(key="http.response.status_code").value.int_value = 200 if series % 7 else 500
    return request.SerializeToString()

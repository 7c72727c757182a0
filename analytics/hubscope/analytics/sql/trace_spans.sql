-- Every span of one trace, by start.
-- Why: what `hubscope trace`, the waterfalls and the critical path are made of.
SELECT
    SpanId AS span_id,
    ParentSpanId AS parent_span_id,
    SpanName AS name,
    SpanKind AS kind,
    ServiceName AS service,
    ts_ns(Timestamp) AS start_ns,
    signed(Duration) AS duration_ns,
    SpanAttributes AS attributes,
    StatusCode AS status_code,
    StatusMessage AS status_message,
    Events AS events,
    Links AS links
FROM otel_traces
WHERE TraceId = $trace_id
ORDER BY start_ns, span_id

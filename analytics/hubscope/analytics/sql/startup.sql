-- The starts: one row for each hub.startup span, with its type, what ended it, and how its beginning was known.
-- Why: the start is the first thing a user waits for, and a run has one.
SELECT
    run_of(ResourceAttributes) AS run,
    TraceId AS trace_id,
    SpanId AS span_id,
    ts_ns(Timestamp) AS start_ns,
    signed(Duration) / 1e9 AS duration_s,
    coalesce(attr(SpanAttributes, 'hub.startup.type'), '') AS type,
    coalesce(attr(SpanAttributes, 'hub.startup.end'), '') AS ended_by,
    coalesce(attr(SpanAttributes, 'hub.startup.origin'), '') AS origin
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND SpanName = 'hub.startup'
ORDER BY run, start_ns

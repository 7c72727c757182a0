-- Every import recorded in a start, as the tree it was: module, its span and parent, duration, used or not.
-- Why: what a lazy import saves is the time of its subtree less what the rest of the program needs anyway.
SELECT
    run_of(ResourceAttributes) AS run,
    TraceId AS trace_id,
    SpanId AS span_id,
    ParentSpanId AS parent_span_id,
    attr(SpanAttributes, 'code.namespace') AS module,
    signed(Duration) / 1e9 AS duration_s,
    coalesce(attr(SpanAttributes, 'hub.import.used_before_interactive'), '') AS used
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND has_attr(SpanAttributes, 'code.namespace') AND SpanName LIKE 'import %'
    AND TraceId IN (SELECT TraceId FROM otel_traces WHERE ServiceName = $service AND SpanName = 'hub.startup')
ORDER BY run, ts_ns(Timestamp), span_id

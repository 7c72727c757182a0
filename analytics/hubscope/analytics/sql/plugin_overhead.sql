-- Time plugins added to each root operation, by run and operation (starts left out): median and p95 over occurrences.
-- Why: the plan allows 50 ms a request or task. A plugin called by a plugin is counted once, in the outer call.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(max(CASE WHEN ParentSpanId = '' THEN SpanName END), min(SpanName)) AS operation
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName <> 'hub.startup'
    GROUP BY TraceId
),
calls AS (
    SELECT
        TraceId AS trace_id,
        SpanId AS span_id,
        ParentSpanId AS parent_id,
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        signed(Duration) / 1e9 AS duration_s
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND has_attr(SpanAttributes, 'hub.plugin.id') AND SpanName LIKE 'plugin %'
),
outer_calls AS (
    SELECT calls.trace_id AS trace_id, calls.run AS run, calls.duration_s AS duration_s
    FROM calls
    LEFT JOIN calls AS around ON around.trace_id = calls.trace_id AND around.span_id = calls.parent_id
    WHERE around.span_id IS NULL
),
added AS (
    SELECT trace_id, max(run) AS run, sum(duration_s) AS added_s FROM outer_calls GROUP BY trace_id
)
SELECT
    added.run AS run,
    entries.operation AS operation,
    count(*) AS n,
    sum(added.added_s) AS sum_s,
    q50(added.added_s) AS median_s,
    q95(added.added_s) AS p95_s,
    worst(added.trace_id, added.added_s) AS worst_trace
FROM added
JOIN entries ON entries.trace_id = added.trace_id
GROUP BY added.run, entries.operation
ORDER BY run, operation

-- Time of plugin calls within root operations, by run, operation and plugin. Starts are left out.
-- Why: who adds the overhead of an operation is told by that operation's own traces; a plugin that is dear elsewhere has
-- no part in it. A plugin called inside another counts in both: this is for an order, the sum is in plugin_overhead.sql.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(max(CASE WHEN ParentSpanId = '' THEN SpanName END), min(SpanName)) AS operation
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName NOT LIKE 'hub.startup%'
    GROUP BY TraceId
),
calls AS (
    SELECT
        TraceId AS trace_id,
        run_of(ResourceAttributes) AS run,
        attr(SpanAttributes, 'hub.plugin.id') AS plugin,
        signed(Duration) / 1e9 AS duration_s
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'hub.plugin.id') AND SpanName LIKE 'plugin %'
)
SELECT calls.run AS run, entries.operation AS operation, calls.plugin AS plugin, sum(calls.duration_s) AS sum_s
FROM calls
JOIN entries ON entries.trace_id = calls.trace_id
GROUP BY calls.run, entries.operation, calls.plugin
ORDER BY run, operation, sum_s DESC, plugin

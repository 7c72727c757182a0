-- Queries by run, root operation and shape: how often, how long, and the slowest one.
-- Why: a query is judged by its shape (db.query.summary names the text with literals replaced), under the operation
-- that a user waits for.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(max(CASE WHEN ParentSpanId = '' THEN SpanName END), min(SpanName)) AS operation
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer'))
    GROUP BY TraceId
),
queries AS (
    SELECT
        TraceId AS trace_id,
        SpanId AS span_id,
        run_of(ResourceAttributes) AS run,
        coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName) AS shape,
        coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS collection,
        attr(SpanAttributes, 'db.system.name') AS system,
        coalesce(attr(SpanAttributes, 'db.namespace'), '') AS namespace,
        signed(Duration) / 1e9 AS duration_s
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'db.system.name')
        AND coalesce(attr(SpanAttributes, 'db.operation.name'), '') NOT IN ('search', 'upsert')
)
SELECT
    queries.run AS run,
    coalesce(entries.operation, '') AS operation,
    queries.shape AS shape,
    max(queries.collection) AS collection,
    max(queries.system) AS system,
    max(queries.namespace) AS namespace,
    count(*) AS n,
    sum(queries.duration_s) AS sum_s,
    q50(queries.duration_s) AS median_s,
    q95(queries.duration_s) AS p95_s,
    max(queries.duration_s) AS max_s,
    worst(queries.trace_id, queries.duration_s) AS worst_trace,
    worst(queries.span_id, queries.duration_s) AS worst_span
FROM queries
LEFT JOIN entries ON entries.trace_id = queries.trace_id
GROUP BY queries.run, coalesce(entries.operation, ''), queries.shape
ORDER BY run, operation, shape

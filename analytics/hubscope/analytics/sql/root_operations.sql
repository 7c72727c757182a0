-- Root operations by run: how often, how long (median, p95, sum), how many failed, and the slowest one's trace.
-- Why: these are what a user waits for; everything else is judged by its share of them. A server or consumer span
-- counts as a root of its service, because its parent is another program's.
SELECT
    run_of(ResourceAttributes) AS run,
    SpanName AS operation,
    count(*) AS n,
    sum(signed(Duration)) / 1e9 AS sum_s,
    q50(signed(Duration)) / 1e9 AS median_s,
    q95(signed(Duration)) / 1e9 AS p95_s,
    max(signed(Duration)) / 1e9 AS max_s,
    sum(CASE WHEN StatusCode = 'Error' THEN 1 ELSE 0 END) AS errors,
    worst(TraceId, signed(Duration)) AS worst_trace,
    worst(SpanId, signed(Duration)) AS worst_span
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer'))
GROUP BY run, operation
ORDER BY run, operation

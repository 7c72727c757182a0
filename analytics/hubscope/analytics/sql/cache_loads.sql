-- Loads after cache misses by run and cache: how often and how long.
-- Why: a miss is worth what it takes to fetch or compute the value.
SELECT
    run_of(ResourceAttributes) AS run,
    attr(SpanAttributes, 'hub.cache.name') AS cache,
    count(*) AS n,
    sum(signed(Duration)) / 1e9 AS sum_s,
    avg(signed(Duration)) / 1e9 AS mean_s,
    max(signed(Duration)) / 1e9 AS max_s,
    worst(TraceId, signed(Duration)) AS worst_trace,
    worst(SpanId, signed(Duration)) AS worst_span,
    worst(ParentSpanId, signed(Duration)) AS worst_parent
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND SpanName LIKE 'load %' AND has_attr(SpanAttributes, 'hub.cache.name')
GROUP BY run, cache
ORDER BY run, cache

-- Vector searches by run and index: how often, how long, in an index of what kind and size.
-- Why: the plan allows a search 50 ms; which index fits depends on how many vectors it holds.
SELECT
    run_of(ResourceAttributes) AS run,
    coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS index_name,
    max(coalesce(attr(SpanAttributes, 'hub.vector.index_type'), '')) AS index_type,
    max(attr_f(SpanAttributes, 'hub.vector.size')) AS size,
    max(attr_f(SpanAttributes, 'hub.vector.dimensions')) AS dimensions,
    count(*) AS n,
    sum(signed(Duration)) / 1e9 AS sum_s,
    q50(signed(Duration)) / 1e9 AS median_s,
    q95(signed(Duration)) / 1e9 AS p95_s,
    max(signed(Duration)) / 1e9 AS max_s,
    worst(TraceId, signed(Duration)) AS worst_trace,
    worst(SpanId, signed(Duration)) AS worst_span
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND attr(SpanAttributes, 'db.operation.name') = 'search' AND has_attr(SpanAttributes, 'hub.vector.top_k')
GROUP BY run, index_name
ORDER BY run, index_name

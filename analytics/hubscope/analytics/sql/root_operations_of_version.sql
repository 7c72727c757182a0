-- Root operations of one version over all its runs: how often and how long. Starts are left out.
-- Why: where the time goes is asked of a version; percentiles of single runs cannot be put together.
SELECT
    SpanName AS name,
    '' AS detail,
    count(*) AS n,
    sum(signed(Duration)) / 1e9 AS sum_s,
    q50(signed(Duration)) / 1e9 AS median_s,
    q95(signed(Duration)) / 1e9 AS p95_s
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND coalesce(attr(ResourceAttributes, 'service.version'), '') = $version
    AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName NOT IN ('hub.startup', 'hub.startup.worker')
GROUP BY SpanName
ORDER BY sum_s DESC, name

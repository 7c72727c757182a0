-- The runs that are workers: processes that a measured process of the application started, and which one did.
-- Why: a pool of six is one start and one run of the application, not seven.
SELECT
    run_of(ResourceAttributes) AS run,
    coalesce(max(attr(SpanAttributes, 'hub.startup.parent')), '') AS parent
FROM otel_traces
WHERE ($service = '*' OR ServiceName = $service) AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND SpanName = 'hub.startup.worker'
GROUP BY run
ORDER BY run

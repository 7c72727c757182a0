-- The runs that are workers: processes that a measured process of the application started, and which one did.
-- Why: a pool of six is one start and one run of the application, not seven. Where the
-- environment gives all of them one instance, they are one run as they are.
SELECT
    run_of(ResourceAttributes) AS run,
    coalesce(max(attr(SpanAttributes, 'hub.startup.parent')), '') AS parent
FROM otel_traces
WHERE ($service = '*' OR ServiceName = $service) AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND SpanName = 'hub.startup.worker'
    AND coalesce(attr(ResourceAttributes, 'service.instance.id'), '') <> attr(SpanAttributes, 'hub.startup.parent')
GROUP BY run
ORDER BY run

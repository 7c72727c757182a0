-- The runs as metrics know them: one row for each version of each service.instance.id of each service, when it was seen.
-- Why: a service that sends metrics and no spans has KPIs as well, and its report must say so.
SELECT
    service,
    run,
    coalesce(max(instance_id), '') AS instance,
    coalesce(max(service_version), '') AS version,
    min(time_ns) AS first_ns,
    max(time_ns) AS last_ns,
    0 AS spans
FROM (
    SELECT
        ServiceName AS service,
        run_of(ResourceAttributes) AS run,
        attr(ResourceAttributes, 'service.instance.id') AS instance_id,
        attr(ResourceAttributes, 'service.version') AS service_version,
        ts_ns(TimeUnix) AS time_ns
    FROM otel_metrics_gauge
    UNION ALL
    SELECT ServiceName, run_of(ResourceAttributes), attr(ResourceAttributes, 'service.instance.id'), attr(ResourceAttributes, 'service.version'), ts_ns(TimeUnix)
    FROM otel_metrics_sum
    UNION ALL
    SELECT ServiceName, run_of(ResourceAttributes), attr(ResourceAttributes, 'service.instance.id'), attr(ResourceAttributes, 'service.version'), ts_ns(TimeUnix)
    FROM otel_metrics_exponential_histogram
    UNION ALL
    SELECT ServiceName, run_of(ResourceAttributes), attr(ResourceAttributes, 'service.instance.id'), attr(ResourceAttributes, 'service.version'), ts_ns(TimeUnix)
    FROM otel_metrics_histogram
) AS points
WHERE time_ns >= $since_ns AND time_ns < $until_ns AND ($service = '*' OR service = $service)
GROUP BY service, run
ORDER BY service, first_ns, run

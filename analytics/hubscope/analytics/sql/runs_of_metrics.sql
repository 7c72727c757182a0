-- The runs as metrics know them: one row for each version of each service.instance.id of each service, when it was seen.
-- Why: a service that sends metrics and no spans has KPIs as well, and its report must say so.
SELECT
    service,
    run,
    max(instance) AS instance,
    max(version) AS version,
    min(first_ns) AS first_ns,
    max(last_ns) AS last_ns,
    0 AS spans
FROM (
    SELECT
        ServiceName AS service,
        run_of(ResourceAttributes) AS run,
        coalesce(max(attr(ResourceAttributes, 'service.instance.id')), '') AS instance,
        coalesce(max(attr(ResourceAttributes, 'service.version')), '') AS version,
        min(ts_ns(TimeUnix)) AS first_ns,
        max(ts_ns(TimeUnix)) AS last_ns
    FROM otel_metrics_gauge
    WHERE ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    GROUP BY service, run
    UNION ALL
    SELECT
        ServiceName AS service,
        run_of(ResourceAttributes) AS run,
        coalesce(max(attr(ResourceAttributes, 'service.instance.id')), '') AS instance,
        coalesce(max(attr(ResourceAttributes, 'service.version')), '') AS version,
        min(ts_ns(TimeUnix)) AS first_ns,
        max(ts_ns(TimeUnix)) AS last_ns
    FROM otel_metrics_sum
    WHERE ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    GROUP BY service, run
    UNION ALL
    SELECT
        ServiceName AS service,
        run_of(ResourceAttributes) AS run,
        coalesce(max(attr(ResourceAttributes, 'service.instance.id')), '') AS instance,
        coalesce(max(attr(ResourceAttributes, 'service.version')), '') AS version,
        min(ts_ns(TimeUnix)) AS first_ns,
        max(ts_ns(TimeUnix)) AS last_ns
    FROM otel_metrics_exponential_histogram
    WHERE ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    GROUP BY service, run
    UNION ALL
    SELECT
        ServiceName AS service,
        run_of(ResourceAttributes) AS run,
        coalesce(max(attr(ResourceAttributes, 'service.instance.id')), '') AS instance,
        coalesce(max(attr(ResourceAttributes, 'service.version')), '') AS version,
        min(ts_ns(TimeUnix)) AS first_ns,
        max(ts_ns(TimeUnix)) AS last_ns
    FROM otel_metrics_histogram
    WHERE ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    GROUP BY service, run
) AS seen
WHERE $service = '*' OR service = $service
GROUP BY service, run
ORDER BY service, first_ns, run

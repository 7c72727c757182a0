-- The runs: one row for each version of each service.instance.id of each service, and when it was seen.
-- Why: the run is the unit of every statistic; what is compared is groups of runs. An instance may be the name of a
-- place that outlives a release, or absent: two versions are never one run.
SELECT
    ServiceName AS service,
    run_of(ResourceAttributes) AS run,
    coalesce(max(attr(ResourceAttributes, 'service.instance.id')), '') AS instance,
    coalesce(max(attr(ResourceAttributes, 'service.version')), '') AS version,
    min(ts_ns(Timestamp)) AS first_ns,
    max(ts_ns(Timestamp) + signed(Duration)) AS last_ns,
    count(*) AS spans
FROM otel_traces
WHERE ($service = '*' OR ServiceName = $service) AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
GROUP BY service, run
ORDER BY service, first_ns, run

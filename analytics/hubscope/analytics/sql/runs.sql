-- The runs: one row for each service.instance.id of each service, with its version and when it was seen.
-- Why: the run is the unit of every statistic; what is compared is groups of runs.
SELECT
    ServiceName AS service,
    coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
    max(coalesce(attr(ResourceAttributes, 'service.version'), '')) AS version,
    min(ts_ns(Timestamp)) AS first_ns,
    max(ts_ns(Timestamp) + signed(Duration)) AS last_ns,
    count(*) AS spans
FROM otel_traces
WHERE ($service = '*' OR ServiceName = $service) AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
GROUP BY service, run
ORDER BY service, first_ns, run

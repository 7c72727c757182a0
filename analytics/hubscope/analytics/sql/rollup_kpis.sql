-- KPIs over long times, a row a step of $step_s, version and KPI: mean, lowest, highest value, and how many missed.
-- Why: KPI points leave with the retention; whether a target was kept over months is read from their rollup.
SELECT
    bucket_ns(TimeUnixNano, CAST($step_s * 1e9 AS BIGINT)) AS start_ns,
    KpiName AS kpi,
    coalesce(ServiceVersion, '') AS version,
    CAST(sum(Count) AS BIGINT) AS n,
    CAST(sum(ErrorCount) AS BIGINT) AS missed,
    sum(Sum) / sum(Count) AS mean,
    min(Min) AS low,
    max(Max) AS high
FROM hub_rollup
WHERE ServiceName = $service AND MetricName = 'hub.kpi.value' AND TimeUnixNano >= $since_ns AND TimeUnixNano < $until_ns
GROUP BY start_ns, kpi, version
ORDER BY start_ns, kpi, version

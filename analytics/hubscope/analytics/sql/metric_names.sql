-- The metrics a service has sent that a KPI can be read from.
-- Why: most KPIs are fed by metrics that most programs do not send; a report asks for those points only that are there.
SELECT DISTINCT metric
FROM (
    SELECT MetricName AS metric FROM otel_metrics_gauge
    WHERE ServiceName = $service AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    UNION ALL
    SELECT MetricName AS metric FROM otel_metrics_sum
    WHERE ServiceName = $service AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    UNION ALL
    SELECT MetricName AS metric FROM otel_metrics_histogram
    WHERE ServiceName = $service AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    UNION ALL
    SELECT MetricName AS metric FROM otel_metrics_exponential_histogram
    WHERE ServiceName = $service AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
) AS sent
ORDER BY metric

-- The points of one gauge or sum, by run and series. Which attributes is added where the marker stands.
-- Why: a KPI on a metric is judged by the values as they were sent.
SELECT run, series, start_ns, time_ns, temporality, value
FROM (
    SELECT
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        CAST(Attributes AS VARCHAR) AS series,
        ts_ns(StartTimeUnix) AS start_ns,
        ts_ns(TimeUnix) AS time_ns,
        0 AS temporality,
        coalesce(Value, signed(ValueInt)) AS value
    FROM otel_metrics_gauge
    WHERE ServiceName = $service AND MetricName = $metric
        AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
        /* feed */
    UNION ALL
    SELECT
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        CAST(Attributes AS VARCHAR) AS series,
        ts_ns(StartTimeUnix) AS start_ns,
        ts_ns(TimeUnix) AS time_ns,
        AggregationTemporality AS temporality,
        coalesce(Value, signed(ValueInt)) AS value
    FROM otel_metrics_sum
    WHERE ServiceName = $service AND MetricName = $metric
        AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
        /* feed */
) AS fed
ORDER BY run, series, time_ns

-- The points of one gauge or sum, by run and series. Which attributes is added where the marker stands.
-- Why: a KPI on a metric is judged by the values as they were sent. What is sent of a counter is its sum since the
-- program began: its value here is what it grew by since its point before.
SELECT
    run,
    series,
    time_ns,
    CASE
        WHEN monotonic THEN added(temporality, value, value_before, start_ns, time_ns, $since_ns)
        ELSE value
    END AS value
FROM (
    SELECT
        run_of(ResourceAttributes) AS run,
        concat(CAST(ResourceAttributes AS VARCHAR), ' ', ScopeName, ' ', CAST(Attributes AS VARCHAR)) AS series,
        ts_ns(StartTimeUnix) AS start_ns,
        ts_ns(TimeUnix) AS time_ns,
        0 AS temporality,
        FALSE AS monotonic,
        coalesce(Value, signed(ValueInt)) AS value,
        NULL AS value_before
    FROM otel_metrics_gauge
    WHERE ServiceName = $service AND MetricName = $metric
        AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
        /* feed */
    UNION ALL
    SELECT
        run_of(ResourceAttributes) AS run,
        concat(CAST(ResourceAttributes AS VARCHAR), ' ', ScopeName, ' ', CAST(Attributes AS VARCHAR)) AS series,
        ts_ns(StartTimeUnix) AS start_ns,
        ts_ns(TimeUnix) AS time_ns,
        AggregationTemporality AS temporality,
        coalesce(IsMonotonic, FALSE) AS monotonic,
        coalesce(Value, signed(ValueInt)) AS value,
        lag(coalesce(Value, signed(ValueInt))) OVER (
            PARTITION BY
                CAST(ResourceAttributes AS VARCHAR), ScopeName, CAST(Attributes AS VARCHAR), ts_ns(StartTimeUnix)
            ORDER BY ts_ns(TimeUnix)
        ) AS value_before
    FROM otel_metrics_sum
    WHERE ServiceName = $service AND MetricName = $metric AND ts_ns(TimeUnix) < $until_ns
        AND (ts_ns(TimeUnix) >= $since_ns OR (IsMonotonic AND AggregationTemporality <> 1))
        /* feed */
) AS fed
WHERE time_ns >= $since_ns
ORDER BY run, series, time_ns

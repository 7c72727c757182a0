-- How much a counter grew within the window, by run and attributes. Which attributes is added where the marker stands.
-- Why: a cumulative counter holds what came before the window as well: what it grew by is read from point to point, the
-- first from the last point before the window. `added` says what a point adds.
SELECT run, attributes, sum(grown) AS grown
FROM (
    SELECT
        run,
        attributes,
        time_ns,
        added(temporality, value, value_before, start_ns, time_ns, $since_ns) AS grown
    FROM (
        SELECT
            run_of(ResourceAttributes) AS run,
            Attributes AS attributes,
            ts_ns(StartTimeUnix) AS start_ns,
            ts_ns(TimeUnix) AS time_ns,
            AggregationTemporality AS temporality,
            coalesce(Value, signed(ValueInt)) AS value,
            lag(coalesce(Value, signed(ValueInt))) OVER (
                PARTITION BY
                    CAST(ResourceAttributes AS VARCHAR), ScopeName, CAST(Attributes AS VARCHAR), ts_ns(StartTimeUnix)
                ORDER BY ts_ns(TimeUnix)
            ) AS value_before
        FROM otel_metrics_sum
        WHERE ServiceName = $service AND MetricName = $metric AND ts_ns(TimeUnix) < $until_ns
            AND (ts_ns(TimeUnix) >= $since_ns OR AggregationTemporality <> 1)
            /* feed */
    ) AS points
) AS steps
WHERE time_ns >= $since_ns
GROUP BY run, attributes
ORDER BY run, attributes

-- The points of one histogram with explicit bounds, by run and series. Which attributes is added where the marker
-- stands. Of a cumulative series also its last point before the window.
-- Why: SDKs of other languages send these by default; a KPI on such a metric is no less fed.
SELECT
    run, series, attributes, start_ns, time_ns, temporality, n,
    total, low, high, bucket_counts, bounds
FROM (
    SELECT
        run_of(ResourceAttributes) AS run,
        concat(CAST(ResourceAttributes AS VARCHAR), ' ', ScopeName, ' ', CAST(Attributes AS VARCHAR)) AS series,
        Attributes AS attributes,
        ts_ns(StartTimeUnix) AS start_ns,
        ts_ns(TimeUnix) AS time_ns,
        AggregationTemporality AS temporality,
        Count AS n,
        Sum AS total,
        Min AS low,
        Max AS high,
        BucketCounts AS bucket_counts,
        ExplicitBounds AS bounds,
        row_number() OVER (
            PARTITION BY
                CAST(ResourceAttributes AS VARCHAR), ScopeName, CAST(Attributes AS VARCHAR), ts_ns(StartTimeUnix),
                ts_ns(TimeUnix) >= $since_ns
            ORDER BY ts_ns(TimeUnix) DESC
        ) AS place
    FROM otel_metrics_histogram
    WHERE ServiceName = $service AND MetricName = $metric AND ts_ns(TimeUnix) < $until_ns
        AND (ts_ns(TimeUnix) >= $since_ns OR AggregationTemporality <> 1)
        /* feed */
) AS fed
WHERE time_ns >= $since_ns OR place = 1
ORDER BY run, series, time_ns

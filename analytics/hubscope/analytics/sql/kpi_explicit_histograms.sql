-- The points of one histogram with explicit bounds, by run and series. Which attributes is added where the marker stands.
-- Why: SDKs of other languages send these by default; a KPI on such a metric is no less fed.
SELECT
    coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
    CAST(Attributes AS VARCHAR) AS series,
    ts_ns(StartTimeUnix) AS start_ns,
    ts_ns(TimeUnix) AS time_ns,
    AggregationTemporality AS temporality,
    Count AS n,
    Sum AS total,
    Min AS low,
    Max AS high,
    BucketCounts AS bucket_counts,
    ExplicitBounds AS bounds
FROM otel_metrics_histogram
WHERE ServiceName = $service AND MetricName = $metric
    AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    /* feed */
ORDER BY run, series, time_ns

-- The points of one exponential histogram, by run and series. Which attributes is added where the marker stands.
-- Why: quantiles over a run are read from its merged buckets.
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
    Scale AS scale,
    ZeroCount AS zero_count,
    PositiveOffset AS offset_index,
    PositiveBucketCounts AS bucket_counts
FROM otel_metrics_exponential_histogram
WHERE ServiceName = $service AND MetricName = $metric
    AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
    /* feed */
ORDER BY run, series, time_ns

-- Cache look-ups by run, cache and result. A cumulative counter counts by its last point of each start, a delta by all.
-- Why: the hit rate, as counted by the application for every look-up.
WITH points AS (
    SELECT
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        coalesce(attr(Attributes, 'hub.cache.name'), '') AS cache,
        coalesce(attr(Attributes, 'hub.cache.tier'), '') AS tier,
        coalesce(attr(Attributes, 'hub.cache.result'), '') AS result,
        ts_ns(StartTimeUnix) AS start_ns,
        AggregationTemporality AS temporality,
        coalesce(Value, signed(ValueInt)) AS value
    FROM otel_metrics_sum
    WHERE ServiceName = $service AND MetricName = 'hub.cache.requests'
        AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
),
starts AS (
    SELECT
        run, cache, tier, result, start_ns,
        CASE WHEN max(temporality) = 1 THEN sum(value) ELSE max(value) END AS requests
    FROM points
    GROUP BY run, cache, tier, result, start_ns
)
SELECT run, cache, max(tier) AS tier, result, sum(requests) AS requests
FROM starts
GROUP BY run, cache, result
ORDER BY run, cache, result

-- Resident memory of each run over time.
-- Why: growth is judged within long runs only, on block medians of these points.
SELECT
    run_of(ResourceAttributes) AS run,
    ts_ns(TimeUnix) AS time_ns,
    max(coalesce(Value, signed(ValueInt))) AS bytes
FROM otel_metrics_sum
WHERE ServiceName = $service AND MetricName = 'process.memory.usage'
    AND ts_ns(TimeUnix) >= $since_ns AND ts_ns(TimeUnix) < $until_ns
GROUP BY run, time_ns
ORDER BY run, time_ns

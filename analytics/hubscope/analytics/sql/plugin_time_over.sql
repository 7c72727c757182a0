-- One plugin's hook by run: calls, mean duration, and the mean when no call took longer than $limit_s.
-- Why: what holding a plugin to its execution quota would leave.
SELECT
    run_of(ResourceAttributes) AS run,
    count(*) AS n,
    avg(signed(Duration)) / 1e9 AS mean_s,
    avg(least(signed(Duration) / 1e9, $limit_s)) AS held_mean_s,
    sum(CASE WHEN signed(Duration) / 1e9 > $limit_s THEN 1 ELSE 0 END) AS over
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND attr(SpanAttributes, 'hub.plugin.id') = $plugin
    AND coalesce(attr(SpanAttributes, 'hub.plugin.hook'), '') = $hook
    AND SpanName LIKE 'plugin %'
GROUP BY run
ORDER BY run

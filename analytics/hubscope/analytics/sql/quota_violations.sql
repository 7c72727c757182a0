-- Quota violations by run, plugin and resource: how many, against which limit, how far over, and where.
-- Why: what a plugin was allowed was decided when it ran; the event says so, whatever today's rules are.
SELECT
    run_of(ResourceAttributes) AS run,
    coalesce(attr(LogAttributes, 'hub.plugin.id'), '') AS plugin,
    coalesce(attr(LogAttributes, 'hub.plugin.hook'), '') AS hook,
    coalesce(attr(LogAttributes, 'hub.quota.resource'), '') AS resource,
    max(coalesce(attr(LogAttributes, 'hub.plugin.tier'), '')) AS tier,
    max(coalesce(attr(LogAttributes, 'hub.quota.unit'), '')) AS unit,
    max(coalesce(attr(LogAttributes, 'hub.quota.action'), '')) AS action,
    min(attr_f(LogAttributes, 'hub.quota.limit')) AS limit_value,
    max(attr_f(LogAttributes, 'hub.quota.observed')) AS observed_max,
    q50(attr_f(LogAttributes, 'hub.quota.observed')) AS observed_median,
    max(attr_f(LogAttributes, 'hub.quota.window')) AS window_s,
    count(*) AS n,
    worst(TraceId, attr_f(LogAttributes, 'hub.quota.observed')) AS worst_trace,
    worst(SpanId, attr_f(LogAttributes, 'hub.quota.observed')) AS worst_span
FROM otel_logs
WHERE ServiceName = $service AND EventName = 'hub.quota.violation'
    AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
GROUP BY run, plugin, hook, resource
ORDER BY run, plugin, hook, resource

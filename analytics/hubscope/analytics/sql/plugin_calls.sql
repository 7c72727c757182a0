-- Plugin calls by run, plugin and hook: how often, how long, how much CPU, and the slowest call.
-- Why: quotas and the plan's overhead target are judged by plugin; a slow hook is mended by hook.
SELECT
    run_of(ResourceAttributes) AS run,
    attr(SpanAttributes, 'hub.plugin.id') AS plugin,
    coalesce(attr(SpanAttributes, 'hub.plugin.hook'), '') AS hook,
    max(coalesce(attr(SpanAttributes, 'hub.plugin.tier'), '')) AS tier,
    max(coalesce(attr(SpanAttributes, 'hub.plugin.permissions'), '')) AS permissions,
    count(*) AS n,
    sum(signed(Duration)) / 1e9 AS sum_s,
    avg(signed(Duration)) / 1e9 AS mean_s,
    q50(signed(Duration)) / 1e9 AS median_s,
    q95(signed(Duration)) / 1e9 AS p95_s,
    max(signed(Duration)) / 1e9 AS max_s,
    sum(attr_f(SpanAttributes, 'hub.plugin.cpu_time')) AS cpu_s,
    count(attr_f(SpanAttributes, 'hub.plugin.cpu_time')) AS cpu_n,
    count(attr_f(SpanAttributes, 'hub.plugin.memory_delta')) AS memory_n,
    count(attr_f(SpanAttributes, 'hub.plugin.network_bytes')) AS network_n,
    count(attr_f(SpanAttributes, 'hub.plugin.disk_bytes')) AS filesystem_n,
    worst(TraceId, signed(Duration)) AS worst_trace,
    worst(SpanId, signed(Duration)) AS worst_span
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND has_attr(SpanAttributes, 'hub.plugin.id') AND SpanName LIKE 'plugin %'
GROUP BY run, plugin, hook
ORDER BY run, plugin, hook

-- CPU time of one plugin's calls by run and tumbling window of $window_ns; a call that touches several has its own row.
-- Why: a violation says what had been used when the limit was crossed; what was used in the end is the window's sum.
SELECT run, min(start_ns) AS start_ns, max(end_ns) AS end_ns, sum(cpu_s) AS cpu_s
FROM (
    SELECT
        run_of(ResourceAttributes) AS run,
        ts_ns(Timestamp) AS start_ns,
        ts_ns(Timestamp) + signed(Duration) AS end_ns,
        attr_f(SpanAttributes, 'hub.plugin.cpu_time') AS cpu_s,
        concat(TraceId, SpanId) AS id
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND attr(SpanAttributes, 'hub.plugin.id') = $plugin AND SpanName LIKE 'plugin %'
        AND has_attr(SpanAttributes, 'hub.plugin.cpu_time')
) AS calls
GROUP BY
    run,
    start_ns // $window_ns,
    end_ns // $window_ns,
    CASE WHEN start_ns // $window_ns <> end_ns // $window_ns THEN id ELSE '' END
ORDER BY run, start_ns

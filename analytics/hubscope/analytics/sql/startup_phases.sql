-- Start-up phases by run: how long each took.
-- Why: a slow start is mended phase by phase. What a worker runs of them again is no start of the application.
SELECT
    run_of(ResourceAttributes) AS run,
    attr(SpanAttributes, 'hub.startup.phase') AS phase,
    count(*) AS n,
    sum(signed(Duration)) / 1e9 AS sum_s,
    worst(TraceId, signed(Duration)) AS worst_trace,
    worst(SpanId, signed(Duration)) AS worst_span
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND has_attr(SpanAttributes, 'hub.startup.phase')
    AND TraceId NOT IN (SELECT TraceId FROM otel_traces WHERE ServiceName = $service AND SpanName = 'hub.startup.worker')
GROUP BY run, phase
ORDER BY run, phase

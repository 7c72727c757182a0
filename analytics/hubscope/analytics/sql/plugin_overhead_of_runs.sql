-- Time plugins added to each root operation, by run over all operations (starts left out): mean, extremes, percentiles.
-- Why: the collector's own hub.plugin.overhead is kept by service and not by run, and a run is the unit of a KPI.
-- A moment in which several plugins run, one inside another or side by side, counts once.
WITH entries AS (
    SELECT DISTINCT TraceId AS trace_id
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName NOT LIKE 'hub.startup%'
),
calls AS (
    SELECT
        TraceId AS trace_id,
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        ts_ns(Timestamp) AS start_ns,
        ts_ns(Timestamp) + signed(Duration) AS end_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'hub.plugin.id') AND SpanName LIKE 'plugin %'
        AND TraceId IN (SELECT trace_id FROM entries)
),
reached AS (
    SELECT
        trace_id,
        run,
        start_ns,
        end_ns,
        coalesce(
            max(end_ns) OVER (
                PARTITION BY trace_id, run ORDER BY start_ns, end_ns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ),
            start_ns
        ) AS before_ns
    FROM calls
),
added AS (
    SELECT trace_id, run, sum(greatest(end_ns - greatest(start_ns, before_ns), 0)) / 1e9 AS added_s
    FROM reached
    GROUP BY trace_id, run
)
SELECT
    run,
    count(*) AS n,
    avg(added_s) AS mean,
    min(added_s) AS min,
    max(added_s) AS max,
    q50(added_s) AS p50,
    q95(added_s) AS p95,
    q99(added_s) AS p99
FROM added
GROUP BY run
ORDER BY run

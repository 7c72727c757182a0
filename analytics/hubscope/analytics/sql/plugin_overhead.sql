-- Time plugins added to root operations, by run and operation, and by run over all operations (`operation` NULL): mean,
-- extremes and percentiles over occurrences. Starts are left out.
-- Why: the plan allows 50 ms a request or task. The collector's own hub.plugin.overhead is kept by service and not by
-- run, and a run is the unit of a KPI. A moment in which several plugins run, one inside another (also with spans
-- between) or side by side, counts once.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(max(CASE WHEN ParentSpanId = '' THEN SpanName END), min(SpanName)) AS operation
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName NOT LIKE 'hub.startup%'
    GROUP BY TraceId
),
calls AS (
    SELECT
        TraceId AS trace_id,
        run_of(ResourceAttributes) AS run,
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
added_to AS (
    SELECT trace_id, run, sum(greatest(end_ns - greatest(start_ns, before_ns), 0)) / 1e9 AS added_s
    FROM reached
    GROUP BY trace_id, run
)
SELECT
    added_to.run AS run,
    entries.operation AS operation,
    count(*) AS n,
    sum(added_to.added_s) AS sum_s,
    avg(added_to.added_s) AS mean,
    min(added_to.added_s) AS min,
    max(added_to.added_s) AS max,
    q50(added_to.added_s) AS p50,
    q95(added_to.added_s) AS p95,
    q99(added_to.added_s) AS p99,
    worst(added_to.trace_id, added_to.added_s) AS worst_trace
FROM added_to
JOIN entries ON entries.trace_id = added_to.trace_id
GROUP BY GROUPING SETS ((added_to.run, entries.operation), (added_to.run))
ORDER BY run, operation

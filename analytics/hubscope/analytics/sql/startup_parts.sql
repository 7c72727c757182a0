-- What stands in a start and is no phase and no import: by run, name, and the phases around it (one a line).
-- `shape` is a query's; empty for everything else.
-- Why: a program that marks no phases still waits for its statements and its vector writes. What an import or another
-- span calls is that span's: other than queries, only what stands directly under hub.startup is listed.
WITH starts AS (
    SELECT TraceId AS trace_id, SpanId AS span_id
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND SpanName = 'hub.startup'
),
spans AS (
    SELECT
        run_of(ResourceAttributes) AS run,
        TraceId AS trace_id,
        SpanId AS span_id,
        ParentSpanId AS parent_id,
        SpanName AS name,
        attr(SpanAttributes, 'hub.startup.phase') AS phase,
        CASE
            WHEN has_attr(SpanAttributes, 'db.system.name')
                AND coalesce(attr(SpanAttributes, 'db.operation.name'), '') NOT IN ('search', 'upsert')
            THEN coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName)
            ELSE ''
        END AS shape,
        has_attr(SpanAttributes, 'code.namespace') AND SpanName LIKE 'import %' AS is_import,
        ts_ns(Timestamp) AS start_ns,
        signed(Duration) AS duration_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND TraceId IN (SELECT trace_id FROM starts)
),
phases AS (
    SELECT trace_id, phase, start_ns, start_ns + duration_ns AS end_ns
    FROM spans
    WHERE phase IS NOT NULL
),
placed AS (
    SELECT
        spans.run, spans.trace_id, spans.span_id, spans.name, spans.shape, spans.duration_ns,
        starts.span_id IS NOT NULL AS direct,
        coalesce(string_agg(DISTINCT phases.phase, chr(10)), '') AS phases
    FROM spans
    LEFT JOIN starts ON starts.trace_id = spans.trace_id AND starts.span_id = spans.parent_id
    LEFT JOIN phases
        ON phases.trace_id = spans.trace_id AND phases.start_ns <= spans.start_ns
        AND phases.end_ns >= spans.start_ns + spans.duration_ns
    WHERE spans.phase IS NULL AND NOT spans.is_import
        AND spans.name NOT IN ('hub.startup', 'hub.startup.first_render')
        AND (spans.shape <> '' OR starts.span_id IS NOT NULL)
    GROUP BY ALL
)
SELECT
    run,
    name,
    shape,
    direct,
    phases,
    count(*) AS n,
    sum(duration_ns) / 1e9 AS sum_s,
    worst(trace_id, duration_ns) AS worst_trace,
    worst(span_id, duration_ns) AS worst_span
FROM placed
GROUP BY run, name, shape, direct, phases
ORDER BY run, name, shape, phases

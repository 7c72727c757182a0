-- Self time within one root operation, by run and span name: seconds for each occurrence of the operation.
-- Why: when an operation got slower, what grew is where to look. Self time is duration less the children's sum.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName = $operation
),
occurrences AS (
    SELECT run, count(*) AS occurrences FROM entries GROUP BY run
),
spans AS (
    SELECT
        TraceId AS trace_id,
        SpanId AS span_id,
        ParentSpanId AS parent_id,
        SpanName AS name,
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        signed(Duration) AS duration_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND TraceId IN (SELECT trace_id FROM entries)
),
inner_time AS (
    SELECT trace_id, parent_id, sum(duration_ns) AS duration_ns FROM spans GROUP BY trace_id, parent_id
)
SELECT
    spans.run AS run,
    spans.name AS name,
    count(*) AS n,
    max(occurrences.occurrences) AS occurrences,
    sum(greatest(spans.duration_ns - coalesce(inner_time.duration_ns, 0), 0)) / 1e9 AS self_s
FROM spans
JOIN occurrences ON occurrences.run = spans.run
LEFT JOIN inner_time ON inner_time.trace_id = spans.trace_id AND inner_time.parent_id = spans.span_id
GROUP BY spans.run, spans.name
ORDER BY run, name

-- Self time within one root operation and waiting for the services it calls, by run and span name.
-- Why: when an operation got slower, what grew is where to look. Self time is duration less the children's sum. Of a
-- client span that a server span answers that rest is the wait on the edge between them (network, queue, a full
-- pool), and stands with the callee. Spans of other services count while the operation runs: what called it does not.
-- A start's first render is a moment, told by the time from process creation to it: it is no part of the start's time.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        max(run_of(ResourceAttributes)) AS run,
        count(*) AS occurrences,
        min(ts_ns(Timestamp)) AS start_ns,
        max(ts_ns(Timestamp) + signed(Duration)) AS end_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName = $operation
    GROUP BY TraceId
),
occurrences AS (
    SELECT run, sum(occurrences) AS occurrences FROM entries GROUP BY run
),
candidates AS (
    SELECT
        TraceId AS trace_id,
        SpanId AS span_id,
        ParentSpanId AS parent_id,
        SpanName AS name,
        SpanKind AS kind,
        ServiceName AS service,
        ts_ns(Timestamp) AS start_ns,
        signed(Duration) AS duration_ns
    FROM otel_traces
    WHERE ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns AND TraceId IN (SELECT trace_id FROM entries)
        AND SpanName <> 'hub.startup.first_render'
),
spans AS (
    SELECT candidates.*, entries.run AS run
    FROM candidates
    JOIN entries ON entries.trace_id = candidates.trace_id
    WHERE candidates.service = $service
        OR (candidates.start_ns >= entries.start_ns AND candidates.start_ns < entries.end_ns)
),
inside AS (
    SELECT
        trace_id,
        parent_id,
        sum(duration_ns) AS duration_ns,
        sum(CASE WHEN kind = 'Server' THEN 1 ELSE 0 END) AS answers
    FROM spans
    GROUP BY trace_id, parent_id
),
own AS (
    SELECT
        spans.*,
        greatest(spans.duration_ns - coalesce(inside.duration_ns, 0), 0) AS own_ns,
        CASE WHEN spans.kind = 'Client' THEN coalesce(inside.answers, 0) ELSE 0 END AS answers
    FROM spans
    LEFT JOIN inside ON inside.trace_id = spans.trace_id AND inside.parent_id = spans.span_id
),
placed AS (
    SELECT
        own.run AS run,
        own.service AS service,
        own.name AS name,
        CASE WHEN own.answers > 0 THEN 0 ELSE own.own_ns END AS self_ns,
        CASE WHEN own.kind = 'Server' AND caller.answers > 0 THEN caller.own_ns / caller.answers ELSE 0 END AS wait_ns
    FROM own
    LEFT JOIN own AS caller ON caller.trace_id = own.trace_id AND caller.span_id = own.parent_id
)
SELECT
    placed.run AS run,
    placed.service AS service,
    placed.name AS name,
    count(*) AS n,
    max(occurrences.occurrences) AS occurrences,
    sum(placed.self_ns) / 1e9 AS self_s,
    sum(placed.wait_ns) / 1e9 AS wait_s
FROM placed
JOIN occurrences ON occurrences.run = placed.run
GROUP BY placed.run, placed.service, placed.name
ORDER BY run, service, name

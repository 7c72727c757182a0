-- Time in queries under one root operation, by run, parent span, collection and shape, and how often the operation ran.
-- Why: what a prediction about queries is held against later. Occurrences without any query count too: their number
-- stands on every row, and a run without any such query has one row of zeros.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        run_of(ResourceAttributes) AS run
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer')) AND SpanName = $operation
),
occurrences AS (
    SELECT run, count(*) AS occurrences FROM entries GROUP BY run
),
queries AS (
    SELECT
        TraceId AS trace_id,
        ParentSpanId AS parent_id,
        run_of(ResourceAttributes) AS run,
        coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName) AS shape,
        coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS collection,
        signed(Duration) / 1e9 AS duration_s
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'db.system.name')
        AND coalesce(attr(SpanAttributes, 'db.operation.name'), '') NOT IN ('search', 'upsert')
        AND TraceId IN (SELECT trace_id FROM entries)
),
parents AS (
    SELECT TraceId AS trace_id, SpanId AS span_id, SpanName AS name
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND TraceId IN (SELECT trace_id FROM entries)
),
grouped AS (
    SELECT
        queries.run AS run,
        coalesce(parents.name, '') AS parent,
        queries.shape AS shape,
        queries.collection AS collection,
        count(*) AS n,
        sum(queries.duration_s) AS sum_s
    FROM queries
    LEFT JOIN parents ON parents.trace_id = queries.trace_id AND parents.span_id = queries.parent_id
    GROUP BY queries.run, coalesce(parents.name, ''), queries.shape, queries.collection
)
SELECT
    occurrences.run AS run,
    occurrences.occurrences AS occurrences,
    coalesce(grouped.parent, '') AS parent,
    coalesce(grouped.shape, '') AS shape,
    coalesce(grouped.collection, '') AS collection,
    coalesce(grouped.n, 0) AS n,
    coalesce(grouped.sum_s, 0.0) AS sum_s
FROM occurrences
LEFT JOIN grouped ON grouped.run = occurrences.run
ORDER BY run, parent, shape, collection

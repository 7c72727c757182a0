-- Time in queries under one root operation, by run, collection and shape, and how often the operation ran.
-- Why: what a prediction about queries is held against later. Occurrences without any query count too: their number
-- stands on every row, and a run without any such query has one row of zeros.
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
queries AS (
    SELECT
        coalesce(attr(ResourceAttributes, 'service.instance.id'), '') AS run,
        coalesce(attr(SpanAttributes, 'db.query.text'), attr(SpanAttributes, 'db.query.summary'), SpanName) AS shape,
        coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS collection,
        count(*) AS n,
        sum(signed(Duration)) / 1e9 AS sum_s
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'db.system.name')
        AND coalesce(attr(SpanAttributes, 'db.operation.name'), '') NOT IN ('search', 'upsert')
        AND TraceId IN (SELECT trace_id FROM entries)
    GROUP BY run, shape, collection
)
SELECT
    occurrences.run AS run,
    occurrences.occurrences AS occurrences,
    coalesce(queries.shape, '') AS shape,
    coalesce(queries.collection, '') AS collection,
    coalesce(queries.n, 0) AS n,
    coalesce(queries.sum_s, 0.0) AS sum_s
FROM occurrences
LEFT JOIN queries ON queries.run = occurrences.run
ORDER BY run, shape, collection

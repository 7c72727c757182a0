-- Five or more queries of one shape in a loop under one parent, every time, and what came before; of the shapes whose
-- queries took $min_ns or more together in some trace. `max_s` is the dearest loop; the typical one, `median_s`, decides.
-- Why: one query that lists, then one query for each item, is the most frequent way to lose time in a database. A
-- loop's body may hold up to four queries: on average at most three others stand between two of the shape. A
-- query wrapped in a span of its own (a memory operation, say) counts under the span around the wrapper, unless the
-- wrapper is a cache's load: that is the cache's finding. Only traces
-- in which one shape occurs often enough are looked at closely: the rest of the table is read once.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(max(CASE WHEN ParentSpanId = '' THEN SpanName END), min(SpanName)) AS operation
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer'))
    GROUP BY TraceId
),
queries AS (
    SELECT
        TraceId AS trace_id,
        SpanId AS span_id,
        ParentSpanId AS parent_id,
        run_of(ResourceAttributes) AS run,
        coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName) AS shape,
        coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS collection,
        ts_ns(Timestamp) AS start_ns,
        signed(Duration) AS duration_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'db.system.name')
        AND coalesce(attr(SpanAttributes, 'db.operation.name'), '') NOT IN ('search', 'upsert')
),
repeated AS (
    SELECT trace_id, shape, sum(duration_ns) AS sum_ns
    FROM queries
    GROUP BY trace_id, shape
    HAVING count(*) >= $min_count
),
suspects AS (
    SELECT DISTINCT trace_id
    FROM repeated
    WHERE shape IN (SELECT shape FROM repeated WHERE sum_ns >= $min_ns)
),
parents AS (
    SELECT TraceId AS trace_id, SpanId AS span_id, ParentSpanId AS parent_id, SpanName AS name
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND TraceId IN (SELECT trace_id FROM suspects)
),
looked_at AS (
    SELECT queries.*, count(*) OVER (PARTITION BY queries.trace_id, queries.parent_id) AS siblings
    FROM queries
    WHERE queries.trace_id IN (SELECT trace_id FROM suspects)
),
owned AS (
    SELECT
        looked_at.*,
        CASE WHEN siblings = 1 AND parents.parent_id <> '' AND parents.name NOT LIKE 'load %' THEN parents.parent_id ELSE looked_at.parent_id END AS owner_id
    FROM looked_at
    LEFT JOIN parents ON parents.trace_id = looked_at.trace_id AND parents.span_id = looked_at.parent_id
),
numbered AS (
    SELECT
        owned.*,
        row_number() OVER (PARTITION BY trace_id, owner_id ORDER BY start_ns, span_id) AS place
    FROM owned
),
islands AS (
    SELECT
        trace_id, owner_id, shape, max(run) AS run, max(collection) AS collection,
        min(place) AS first_place, count(*) AS n, sum(duration_ns) AS sum_ns
    FROM numbered
    GROUP BY trace_id, owner_id, shape
    HAVING count(*) >= $min_count
        AND signed(max(place)) - signed(min(place)) <= 4 * (signed(count(*)) - 1)
),
sources AS (
    SELECT
        islands.trace_id AS trace_id, islands.owner_id AS owner_id, islands.first_place AS first_place,
        max(numbered.place) AS place
    FROM islands
    JOIN numbered
        ON numbered.trace_id = islands.trace_id AND numbered.owner_id = islands.owner_id
        AND numbered.place < islands.first_place AND numbered.place >= islands.first_place - 4
    LEFT JOIN islands AS loops
        ON loops.trace_id = numbered.trace_id AND loops.owner_id = numbered.owner_id AND loops.shape = numbered.shape
    WHERE loops.trace_id IS NULL
    GROUP BY islands.trace_id, islands.owner_id, islands.first_place
),
sourced AS (
    SELECT
        islands.*,
        coalesce(source.shape, '') AS source_shape,
        coalesce(source.collection, '') AS source_collection
    FROM islands
    LEFT JOIN sources
        ON sources.trace_id = islands.trace_id AND sources.owner_id = islands.owner_id
        AND sources.first_place = islands.first_place
    LEFT JOIN numbered AS source
        ON source.trace_id = sources.trace_id AND source.owner_id = sources.owner_id AND source.place = sources.place
)
SELECT
    sourced.run AS run,
    coalesce(entries.operation, '') AS operation,
    coalesce(parents.name, '') AS parent,
    sourced.shape AS shape,
    max(sourced.collection) AS collection,
    sourced.source_shape AS source_shape,
    max(sourced.source_collection) AS source_collection,
    count(*) AS times,
    avg(sourced.n) AS queries_each,
    sum(sourced.sum_ns) / 1e9 AS sum_s,
    q50(sourced.sum_ns) / 1e9 AS median_s,
    max(sourced.sum_ns) / 1e9 AS max_s,
    worst(sourced.trace_id, sourced.sum_ns) AS worst_trace,
    worst(sourced.owner_id, sourced.sum_ns) AS worst_parent
FROM sourced
LEFT JOIN parents ON parents.trace_id = sourced.trace_id AND parents.span_id = sourced.owner_id
LEFT JOIN entries ON entries.trace_id = sourced.trace_id
GROUP BY sourced.run, coalesce(entries.operation, ''), coalesce(parents.name, ''), sourced.shape, sourced.source_shape
ORDER BY sum_s DESC, run, operation, shape

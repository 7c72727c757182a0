-- Vector searches by run and index: how often, how long, in an index of what kind and size.
-- Why: the plan allows a search 50 ms; which index fits depends on how many vectors it holds. An index in the program
-- seldom has a name, and one name may hold many, searched exactly or by a graph: what differs in system, type or the
-- order of magnitude of its size (`size_from`; 0 where it is not known) is another index. A call may search several
-- vectors at once (`batch`): `vector_` columns are of one of them.
SELECT
    run,
    system,
    index_name,
    index_type,
    size_from,
    max(size) AS size,
    max(dimensions) AS dimensions,
    count(*) AS n,
    sum(duration_s) AS sum_s,
    q50(duration_s) AS median_s,
    q95(duration_s) AS p95_s,
    max(duration_s) AS max_s,
    q50(batch) AS batch,
    q50(duration_s / batch) AS vector_median_s,
    q95(duration_s / batch) AS vector_p95_s,
    worst(trace_id, duration_s) AS worst_trace,
    worst(span_id, duration_s) AS worst_span
FROM (
    SELECT
        sent.*,
        CASE WHEN size >= 1 THEN pow(10, floor(log10(size))) ELSE 0 END AS size_from
    FROM (
        SELECT
            run_of(ResourceAttributes) AS run,
            TraceId AS trace_id,
            SpanId AS span_id,
            coalesce(attr(SpanAttributes, 'db.system.name'), '') AS system,
            coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS index_name,
            coalesce(attr(SpanAttributes, 'hub.vector.index_type'), '') AS index_type,
            attr_f(SpanAttributes, 'hub.vector.size') AS size,
            attr_f(SpanAttributes, 'hub.vector.dimensions') AS dimensions,
            greatest(coalesce(attr_f(SpanAttributes, 'db.operation.batch.size'), 1), 1) AS batch,
            signed(Duration) / 1e9 AS duration_s
        FROM otel_traces
        WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
            AND attr(SpanAttributes, 'db.operation.name') = 'search' AND has_attr(SpanAttributes, 'hub.vector.top_k')
    ) AS sent
) AS searches
GROUP BY run, system, index_name, index_type, size_from
ORDER BY run, system, index_name, index_type, size_from

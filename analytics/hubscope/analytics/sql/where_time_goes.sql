-- Queries by shape, vector searches by index and plugin calls by hook of one version: how often and how long.
-- Why: the first question is what the time goes to, before any is judged; percentiles are over all calls of all runs.
-- A vector search is what vector_searches.sql takes for one: an index inside the program has no database system.
SELECT
    kind,
    name,
    CASE WHEN kind = 'query' THEN coalesce(min(query_text), '') ELSE hook_or_type END AS detail,
    count(*) AS n,
    sum(duration_s) AS sum_s,
    q50(duration_s) AS median_s,
    q95(duration_s) AS p95_s
FROM (
    SELECT
        kind,
        CASE
            WHEN kind = 'vector' THEN coalesce(attr(SpanAttributes, 'db.collection.name'), '')
            WHEN kind = 'query' THEN coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName)
            ELSE coalesce(attr(SpanAttributes, 'hub.plugin.id'), '')
        END AS name,
        CASE
            WHEN kind = 'vector' THEN coalesce(attr(SpanAttributes, 'hub.vector.index_type'), '')
            WHEN kind = 'query' THEN ''
            ELSE coalesce(attr(SpanAttributes, 'hub.plugin.hook'), '')
        END AS hook_or_type,
        substr(attr(SpanAttributes, 'db.query.text'), 1, 300) AS query_text,
        signed(Duration) / 1e9 AS duration_s
    FROM (
        SELECT
            *,
            CASE
                WHEN attr(SpanAttributes, 'db.operation.name') = 'search' AND has_attr(SpanAttributes, 'hub.vector.top_k') THEN 'vector'
                WHEN attr(SpanAttributes, 'db.operation.name') = 'upsert' THEN ''
                WHEN has_attr(SpanAttributes, 'db.system.name') THEN 'query'
                WHEN has_attr(SpanAttributes, 'hub.plugin.id') AND SpanName LIKE 'plugin %' THEN 'plugin'
                ELSE ''
            END AS kind
        FROM otel_traces
        WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
            AND coalesce(attr(ResourceAttributes, 'service.version'), '') = $version
    ) AS spans
    WHERE kind <> ''
) AS timed
GROUP BY kind, name, hook_or_type
ORDER BY kind, sum_s DESC, name, hook_or_type

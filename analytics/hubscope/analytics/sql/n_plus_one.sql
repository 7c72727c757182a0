-- Five or more queries of one shape in a loop under one parent, every time, and what listed its items; of the shapes
-- whose queries took $min_ns or more together in some trace. `max_s` is the dearest loop; the typical one, `median_s`,
-- decides.
-- Why: one query that lists, then one query for each item, is the most frequent way to lose time in a database. A
-- loop's body may hold up to four queries: on average at most three others stand between two of the shape. A
-- query wrapped in a span of its own (a memory operation, say) counts under the span around the wrapper, unless the
-- wrapper is a cache's load: that is the cache's finding. Only traces
-- in which one shape occurs often enough are looked at closely: the rest of the table is read once.
-- In a row are queries of which at most a tenth start while another of the shape runs (by more than a tenth of their
-- own time: clocks are that far apart). A loop's time is the union of its queries, cut to the operation, and what lies
-- between them: awaits, ways to another thread and back, work for each item, all of which go when one query takes the
-- loop's place. The median gap from a query's end to the next measured span decides, so a user's pause counts for
-- nothing; of it recording_gap_ns() are the measuring. Where it is more than 1 ms and more than the median query,
-- something else happens between the queries, and none of it is the loop's.
-- Where the measuring (n times span_cost_busy_ns()) may be 30 % of what passed meanwhile, long ones are the measuring's
-- stumbles too, and the loop is its median query n times; `measuring_s` is what was recorded more than that.
-- Writes are a loop only where each item has a commit of its own: half as many COMMITs or more, whose time is the
-- loop's too; or no transaction is known of in the database at all, each write takes 0.1 ms (a commit to a file; within
-- a transaction it is some 5 µs), and the system is SQLite: other libraries' spans do not tell commits.
WITH entries AS (
    SELECT
        TraceId AS trace_id,
        coalesce(max(CASE WHEN ParentSpanId = '' THEN SpanName END), min(SpanName)) AS operation,
        min(ts_ns(Timestamp)) AS start_ns,
        max(ts_ns(Timestamp) + signed(Duration)) AS end_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND (ParentSpanId = '' OR SpanKind IN ('Server', 'Consumer'))
    GROUP BY TraceId
),
statements AS (
    SELECT
        TraceId AS trace_id,
        SpanId AS span_id,
        ParentSpanId AS parent_id,
        run_of(ResourceAttributes) AS run,
        coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName) AS shape,
        upper(coalesce(attr(SpanAttributes, 'db.operation.name'), attr(SpanAttributes, 'db.query.summary'), SpanName)) AS verb,
        coalesce(attr(SpanAttributes, 'db.collection.name'), '') AS collection,
        attr(SpanAttributes, 'db.system.name') AS system,
        coalesce(attr(SpanAttributes, 'db.namespace'), '') AS namespace,
        attr_f(SpanAttributes, 'db.response.returned_rows') AS returned_rows,
        ts_ns(Timestamp) AS start_ns,
        signed(Duration) AS duration_ns
    FROM otel_traces
    WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
        AND has_attr(SpanAttributes, 'db.system.name')
        AND coalesce(attr(SpanAttributes, 'db.operation.name'), '') NOT IN ('search', 'upsert')
),
queries AS (
    SELECT
        statements.*,
        CASE
            WHEN verb IN ('COMMIT', 'END') OR verb LIKE 'COMMIT %' OR verb LIKE 'END %' THEN 'commit'
            WHEN verb IN ('BEGIN', 'START', 'ROLLBACK', 'SAVEPOINT', 'RELEASE') OR verb LIKE 'BEGIN %' OR verb LIKE 'START %'
                OR verb LIKE 'ROLLBACK %' OR verb LIKE 'SAVEPOINT %' OR verb LIKE 'RELEASE %' THEN 'transaction'
            WHEN verb LIKE 'INSERT%' OR verb LIKE 'UPDATE%' OR verb LIKE 'DELETE%' OR verb LIKE 'REPLACE%'
                OR verb LIKE 'UPSERT%' OR verb LIKE 'MERGE%' THEN 'write'
            WHEN verb LIKE 'SELECT%' OR verb LIKE 'WITH%' OR verb LIKE 'FIND%' THEN 'list'
            ELSE ''
        END AS kind
    FROM statements
),
transactions AS (
    SELECT run, namespace FROM queries WHERE kind IN ('commit', 'transaction') GROUP BY run, namespace
),
repeated AS (
    SELECT
        trace_id, shape,
        least(max(start_ns + duration_ns) - min(start_ns), 2 * sum(duration_ns) + 1000000 * count(*)) AS sum_ns
    FROM queries
    GROUP BY trace_id, shape
    HAVING count(*) >= $min_count
    UNION ALL
    SELECT trace_id, '' AS shape, sum(duration_ns) AS sum_ns
    FROM queries
    WHERE kind IN ('write', 'commit')
    GROUP BY trace_id
    HAVING sum(CASE WHEN kind = 'commit' THEN 1 ELSE 0 END) >= $min_count
),
suspects AS (
    SELECT DISTINCT trace_id
    FROM repeated
    WHERE shape IN (SELECT shape FROM repeated WHERE sum_ns >= $min_ns)
),
parents AS (
    SELECT
        TraceId AS trace_id, SpanId AS span_id, ParentSpanId AS parent_id, SpanName AS name,
        ts_ns(Timestamp) AS start_ns, ts_ns(Timestamp) + signed(Duration) AS end_ns
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
        CASE WHEN siblings = 1 AND parents.parent_id <> '' AND parents.name NOT LIKE 'load %' THEN parents.parent_id ELSE looked_at.parent_id END AS owner_id,
        greatest(looked_at.start_ns, coalesce(entries.start_ns, looked_at.start_ns)) AS from_ns,
        least(
            looked_at.start_ns + looked_at.duration_ns,
            coalesce(entries.end_ns, looked_at.start_ns + looked_at.duration_ns)
        ) AS to_ns
    FROM looked_at
    LEFT JOIN parents ON parents.trace_id = looked_at.trace_id AND parents.span_id = looked_at.parent_id
    LEFT JOIN entries ON entries.trace_id = looked_at.trace_id
),
steps AS (
    SELECT trace_id, owner_id, span_id, start_ns, start_ns + duration_ns AS end_ns FROM owned
    UNION ALL
    SELECT parents.trace_id AS trace_id, parents.parent_id AS owner_id, parents.span_id AS span_id, parents.start_ns AS start_ns, parents.end_ns AS end_ns
    FROM parents
    WHERE (parents.trace_id, parents.parent_id) IN (SELECT trace_id, owner_id FROM owned)
        AND (parents.trace_id, parents.span_id) NOT IN (SELECT trace_id, span_id FROM owned)
        AND (parents.trace_id, parents.span_id) NOT IN (SELECT trace_id, parent_id FROM owned WHERE parent_id <> owner_id)
),
followed AS (
    SELECT
        trace_id, owner_id, span_id,
        max(end_ns) OVER (
            PARTITION BY trace_id, owner_id ORDER BY start_ns, span_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS until_ns,
        min(start_ns) OVER (
            PARTITION BY trace_id, owner_id ORDER BY start_ns, span_id
            ROWS BETWEEN 1 FOLLOWING AND 1 FOLLOWING
        ) AS next_ns
    FROM steps
),
numbered AS (
    SELECT
        owned.*,
        greatest(coalesce(followed.next_ns, 0) - followed.until_ns, 0) AS gap_ns,
        count(*) OVER (PARTITION BY owned.trace_id, owned.owner_id, owned.shape) AS in_all,
        row_number() OVER (PARTITION BY owned.trace_id, owned.owner_id ORDER BY owned.start_ns, owned.span_id) AS place,
        row_number() OVER (
            PARTITION BY owned.trace_id, owned.owner_id, owned.shape ORDER BY owned.start_ns, owned.span_id
        ) AS nth,
        max(owned.start_ns + owned.duration_ns) OVER (
            PARTITION BY owned.trace_id, owned.owner_id, owned.shape ORDER BY owned.start_ns, owned.span_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before_ns
    FROM owned
    JOIN followed
        ON followed.trace_id = owned.trace_id AND followed.owner_id = owned.owner_id AND followed.span_id = owned.span_id
),
spread AS (
    SELECT
        numbered.*,
        CASE WHEN nth > 1 AND (before_ns - start_ns) * 10 > duration_ns THEN 1 ELSE 0 END AS beside,
        greatest(to_ns - CASE WHEN nth > 1 THEN greatest(from_ns, before_ns) ELSE from_ns END, 0) AS alone_ns
    FROM numbered
),
islands AS (
    SELECT
        trace_id, owner_id, shape, max(run) AS run, max(collection) AS collection, max(kind) AS kind,
        max(system) AS system, max(namespace) AS namespace,
        min(place) AS first_place, count(*) AS n, sum(alone_ns) AS alone_ns,
        q50(duration_ns) AS query_ns, q50(CASE WHEN nth < in_all THEN gap_ns END) AS gap_ns,
        sum(CASE WHEN nth < in_all THEN gap_ns ELSE 0 END) AS gaps_ns, min(start_ns) AS start_ns, max(start_ns + duration_ns) AS end_ns
    FROM spread
    WHERE kind NOT IN ('commit', 'transaction')
    GROUP BY trace_id, owner_id, shape
    HAVING count(*) >= $min_count
        AND signed(max(place)) - signed(min(place)) <= 4 * (signed(count(*)) - 1)
        AND sum(beside) * 10 <= count(*)
),
commits AS (
    SELECT
        islands.trace_id AS trace_id, islands.owner_id AS owner_id, islands.shape AS shape,
        count(*) AS n, sum(looked_at.duration_ns) AS sum_ns
    FROM islands
    JOIN looked_at
        ON looked_at.trace_id = islands.trace_id AND looked_at.kind = 'commit'
        AND looked_at.start_ns >= islands.start_ns AND looked_at.start_ns <= islands.end_ns
    WHERE islands.kind = 'write'
    GROUP BY islands.trace_id, islands.owner_id, islands.shape
),
judged AS (
    SELECT
        islands.*,
        coalesce(commits.n, 0) AS commits,
        coalesce(commits.sum_ns, 0) AS commits_ns,
        (islands.n + coalesce(commits.n, 0)) * span_cost_busy_ns() * 10 >= 3 * (islands.end_ns - islands.start_ns) AS is_measuring,
        CASE
            WHEN islands.gap_ns <= 1000000 OR islands.gap_ns <= islands.query_ns
            THEN least((islands.n - 1) * greatest(islands.gap_ns - recording_gap_ns(), 0), islands.gaps_ns) ELSE 0
        END AS between_ns
    FROM islands
    LEFT JOIN commits
        ON commits.trace_id = islands.trace_id AND commits.owner_id = islands.owner_id AND commits.shape = islands.shape
    LEFT JOIN transactions ON transactions.run = islands.run AND transactions.namespace = islands.namespace
    WHERE islands.kind <> 'write' OR coalesce(commits.n, 0) * 2 >= islands.n
        OR (transactions.namespace IS NULL AND islands.system = 'sqlite' AND islands.query_ns >= 100000)
),
own AS (
    SELECT
        judged.*,
        CASE WHEN is_measuring THEN least(alone_ns, n * query_ns) ELSE alone_ns END AS queries_ns
    FROM judged
),
loops AS (
    SELECT
        own.*,
        queries_ns + between_ns + commits_ns AS sum_ns,
        CASE WHEN is_measuring THEN alone_ns - queries_ns + gaps_ns - between_ns ELSE 0 END AS measuring_ns
    FROM own
),
sources AS (
    SELECT
        loops.trace_id AS trace_id, loops.owner_id AS owner_id, loops.first_place AS first_place,
        max(numbered.place) AS place
    FROM loops
    JOIN numbered
        ON numbered.trace_id = loops.trace_id AND numbered.owner_id = loops.owner_id
        AND numbered.place < loops.first_place AND numbered.place >= loops.first_place - 4
    LEFT JOIN islands AS others
        ON others.trace_id = numbered.trace_id AND others.owner_id = numbered.owner_id AND others.shape = numbered.shape
    WHERE others.trace_id IS NULL AND numbered.kind = 'list'
        AND coalesce(numbered.returned_rows, loops.n) * 2 >= loops.n
    GROUP BY loops.trace_id, loops.owner_id, loops.first_place
),
sourced AS (
    SELECT
        loops.*,
        coalesce(source.shape, '') AS source_shape,
        coalesce(source.collection, '') AS source_collection
    FROM loops
    LEFT JOIN sources
        ON sources.trace_id = loops.trace_id AND sources.owner_id = loops.owner_id
        AND sources.first_place = loops.first_place
    LEFT JOIN numbered AS source
        ON source.trace_id = sources.trace_id AND source.owner_id = sources.owner_id AND source.place = sources.place
)
SELECT
    sourced.run AS run,
    coalesce(entries.operation, '') AS operation,
    coalesce(parents.name, '') AS parent,
    sourced.shape AS shape,
    max(sourced.kind) AS kind,
    max(sourced.system) AS system,
    max(sourced.collection) AS collection,
    sourced.source_shape AS source_shape,
    max(sourced.source_collection) AS source_collection,
    count(*) AS times,
    avg(sourced.n) AS queries_each,
    avg(sourced.commits) AS commits_each,
    sum(sourced.sum_ns) / 1e9 AS sum_s,
    sum(sourced.queries_ns) / 1e9 AS queries_s,
    sum(sourced.between_ns) / 1e9 AS between_s,
    q50(sourced.sum_ns) / 1e9 AS median_s,
    max(sourced.sum_ns) / 1e9 AS max_s,
    sum(sourced.measuring_ns) / 1e9 AS measuring_s,
    worst(sourced.trace_id, sourced.sum_ns) AS worst_trace,
    worst(sourced.owner_id, sourced.sum_ns) AS worst_parent
FROM sourced
LEFT JOIN parents ON parents.trace_id = sourced.trace_id AND parents.span_id = sourced.owner_id
LEFT JOIN entries ON entries.trace_id = sourced.trace_id
GROUP BY sourced.run, coalesce(entries.operation, ''), coalesce(parents.name, ''), sourced.shape, sourced.source_shape
ORDER BY sum_s DESC, run, operation, shape

-- Operations over long times, a row a step of $step_s and span name: calls, errors, mean, p50, p95, p99.
-- Why: what was rolled up per minute stays when its spans are gone, and months of it are read like a day of spans.
-- Percentiles are a bucket's geometric middle: off by 1.1 % at most.
WITH minutes AS (
    SELECT
        bucket_ns(TimeUnixNano, CAST($step_s * 1e9 AS BIGINT)) AS start_ns,
        coalesce(SpanName, '') AS operation,
        coalesce(SpanKind, '') AS kind,
        Count AS n,
        ErrorCount AS errors,
        Sum AS total,
        Min AS low,
        Max AS high,
        BucketIndexes AS indexes,
        BucketCounts AS counts
    FROM hub_rollup
    WHERE ServiceName = $service AND MetricName IS NULL AND TimeUnixNano >= $since_ns AND TimeUnixNano < $until_ns
),
steps AS (
    SELECT
        start_ns, operation, kind,
        sum(n) AS n, sum(errors) AS errors, sum(total) AS total, min(low) AS low, max(high) AS high
    FROM minutes
    GROUP BY start_ns, operation, kind
),
buckets AS (
    SELECT start_ns, operation, kind, bucket, sum(n) AS n
    FROM (SELECT start_ns, operation, kind, unnest(indexes) AS bucket, unnest(counts) AS n FROM minutes) AS pairs
    GROUP BY start_ns, operation, kind, bucket
),
ranked AS (
    SELECT
        start_ns, operation, kind, bucket,
        sum(n) OVER (PARTITION BY start_ns, operation, kind ORDER BY bucket) AS seen,
        sum(n) OVER (PARTITION BY start_ns, operation, kind) AS whole
    FROM buckets
),
quantiles AS (
    SELECT
        start_ns, operation, kind,
        min(CASE WHEN seen >= 0.50 * whole THEN bucket END) AS b50,
        min(CASE WHEN seen >= 0.95 * whole THEN bucket END) AS b95,
        min(CASE WHEN seen >= 0.99 * whole THEN bucket END) AS b99
    FROM ranked
    GROUP BY start_ns, operation, kind
)
SELECT
    steps.start_ns AS start_ns,
    steps.operation AS operation,
    steps.kind AS kind,
    CAST(steps.n AS BIGINT) AS n,
    CAST(steps.errors AS BIGINT) AS errors,
    steps.total / steps.n AS mean_s,
    greatest(steps.low, least(steps.high, power(2.0, (quantiles.b50 + 0.5) / 32))) AS p50_s,
    greatest(steps.low, least(steps.high, power(2.0, (quantiles.b95 + 0.5) / 32))) AS p95_s,
    greatest(steps.low, least(steps.high, power(2.0, (quantiles.b99 + 0.5) / 32))) AS p99_s,
    steps.low AS min_s,
    steps.high AS max_s
FROM steps
JOIN quantiles
    ON quantiles.start_ns = steps.start_ns AND quantiles.operation = steps.operation AND quantiles.kind = steps.kind
ORDER BY steps.start_ns, steps.operation, steps.kind

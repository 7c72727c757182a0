-- The spans that feed a KPI, by run: how many, and their aggregates. Which spans is added where the marker stands.
-- Why: a KPI's value is a fact about raw rows; what processors derived while data came in is not read again. As there, a
-- value below 0 is a clock that went back and no sample; `counted` are all spans, which is what a ratio is of.
SELECT
    run,
    count(*) AS counted,
    count(value) AS n,
    avg(value) AS mean,
    min(value) AS min,
    max(value) AS max,
    q50(value) AS p50,
    q95(value) AS p95,
    q99(value) AS p99,
    count(text_value) AS texts,
    count(DISTINCT text_value) AS distinct_values,
    sum(CASE WHEN value <= $threshold AND status <> 'Error' THEN 1 ELSE 0 END) AS satisfied,
    sum(CASE WHEN value > $threshold AND value <= 4 * $threshold AND status <> 'Error' THEN 1 ELSE 0 END) AS tolerating
FROM (
    SELECT run, status, CASE WHEN sent >= 0 THEN sent END AS value, nullif(sent_text, '') AS text_value
    FROM (
        SELECT
            run_of(ResourceAttributes) AS run,
            StatusCode AS status,
            CASE WHEN $value = 'duration' THEN signed(Duration) / 1e9 ELSE attr_f(SpanAttributes, $value) END AS sent,
            CASE WHEN $value = 'duration' THEN NULL ELSE attr(SpanAttributes, $value) END AS sent_text
        FROM otel_traces
        WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
            /* feed */
    ) AS spans
) AS fed
GROUP BY run
ORDER BY run

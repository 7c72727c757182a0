-- Duration and returned rows of every query of up to two shapes, at most 5,000 of them by a stable sample.
-- Why: the marginal cost of a row is regressed from these when a batched query is predicted.
SELECT
    run_of(ResourceAttributes) AS run,
    coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName) AS shape,
    signed(Duration) / 1e9 AS duration_s,
    attr_f(SpanAttributes, 'db.response.returned_rows') AS returned_rows
FROM otel_traces
WHERE ServiceName = $service AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
    AND has_attr(SpanAttributes, 'db.system.name')
    AND coalesce(attr(SpanAttributes, 'db.query.summary'), SpanName)
        IN ($shape, $other_shape)
ORDER BY SpanId
LIMIT 5000

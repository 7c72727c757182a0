-- The caches' access logs, stretch by stretch in order: hashed keys, hits, the capacity then.
-- Why: the exact hit rate at any capacity follows from the order of the keys.
SELECT
    run_of(ResourceAttributes) AS run,
    coalesce(attr(LogAttributes, 'hub.cache.name'), '') AS cache,
    attr_f(LogAttributes, 'hub.cache.capacity') AS capacity,
    attr_f(LogAttributes, 'hub.cache.one_in') AS one_in,
    attr(LogAttributes, 'hub.cache.keys') AS keys,
    attr(LogAttributes, 'hub.cache.hits') AS hits
FROM otel_logs
WHERE ServiceName = $service AND EventName = 'hub.cache.access'
    AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
ORDER BY run, cache, ts_ns(Timestamp)

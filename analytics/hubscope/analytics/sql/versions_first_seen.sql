-- The versions of each service and when each was first seen, by spans, in all of the lake and not only in the window.
-- Why: the later version is the one that came later. Text says "1.10" < "1.9"; and in a window in which both still
-- run, the old one's first span may come after the new one's.
SELECT
    ServiceName AS service,
    coalesce(attr(ResourceAttributes, 'service.version'), '') AS version,
    min(ts_ns(Timestamp)) AS first_ns
FROM otel_traces
WHERE ServiceName = $service
GROUP BY service, version
ORDER BY service, first_ns, version

-- Log records by service: how many.
-- Why: a lake that holds logs alone has nothing to judge, and its report says what there is instead.
SELECT ServiceName AS service, count(*) AS n
FROM otel_logs
WHERE ($service = '*' OR ServiceName = $service) AND ts_ns(Timestamp) >= $since_ns AND ts_ns(Timestamp) < $until_ns
GROUP BY ServiceName
ORDER BY service

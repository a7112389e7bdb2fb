-- Reads the samples of the streams, in steps; each step has the worst value, and the sums.
SELECT
    s.stream,
    date_bin(%(step)s::interval, s.at, 'epoch') AS at,
    max(s.backlog) AS backlog,
    max(s.oldest) AS oldest,
    sum(s.settled) AS settled,
    sum(s.typical * s.settled) / nullif(sum(s.settled), 0) AS typical,
    max(s.worst) AS worst,
    sum(s.silent) AS silent,
    (array_agg(s.coverage::text ORDER BY s.at DESC) FILTER (WHERE s.coverage IS NOT NULL))[1]::int[] AS coverage
FROM listener.sample AS s
WHERE s.at > now() - %(span)s::interval
GROUP BY s.stream, date_bin(%(step)s::interval, s.at, 'epoch')
ORDER BY s.stream, at

-- Merges all samples of the same five minutes once they are over two hours old, and deletes those older than eight
-- days. A merged sample covers at least five minutes, and is not merged again.
WITH fine AS (
    DELETE FROM listener.sample AS s
    WHERE s.stream = %(stream)s
        AND s.at < date_bin('5 minutes', now() - interval '2 hours', 'epoch')
        AND (s.seconds < 300 OR s.at < now() - interval '8 days')
    RETURNING
        s.stream, s.at, s.seconds, s.backlog, s.oldest, s.claimed, s.settled, s.typical, s.worst, s.silent, s.woken,
        s.coverage
)
INSERT INTO listener.sample
    (stream, at, seconds, backlog, oldest, claimed, settled, typical, worst, silent, woken, coverage)
SELECT
    f.stream,
    date_bin('5 minutes', f.at, 'epoch') + interval '5 minutes',
    greatest(300, sum(f.seconds)),
    max(f.backlog),
    max(f.oldest),
    sum(f.claimed),
    sum(f.settled),
    sum(f.typical * f.settled) / nullif(sum(f.settled), 0),
    max(f.worst),
    sum(f.silent),
    bool_and(f.woken),
    (array_agg(f.coverage::text ORDER BY f.at DESC) FILTER (WHERE f.coverage IS NOT NULL))[1]::int[]
FROM fine AS f
WHERE f.at >= now() - interval '8 days'
GROUP BY f.stream, date_bin('5 minutes', f.at, 'epoch')

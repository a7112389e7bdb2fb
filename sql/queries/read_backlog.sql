-- Returns for each stream how many changes wait, how long the oldest has waited, whether another daemon follows it,
-- and how many of its rows wait for a retry; and, with each, how many rows are parked and what refreshes have cost
-- Discogs in the last window.
SELECT
    l.stream,
    c.backlog,
    o.oldest,
    l.holder IS NOT NULL
    AND l.holder <> %(holder)s
    AND EXISTS (
        SELECT
        FROM pg_stat_activity AS a
        WHERE a.pid = l.holder_pid
            AND (a.backend_start IS NULL OR a.backend_start = l.holder_started)
    ) AS followed,
    CASE l.stream WHEN 'library' THEN p.retrying ELSE m.retrying END AS retrying,
    p.parked,
    f.spent
FROM listener.lane AS l
CROSS JOIN LATERAL (
    SELECT count(*) AS backlog
    FROM listener.change AS e
    WHERE e.stream = l.stream
) AS c
LEFT JOIN LATERAL (
    SELECT clock_timestamp() - e.changed_at AS oldest
    FROM listener.change AS e
    WHERE e.stream = l.stream
    ORDER BY e.seq
    LIMIT 1
) AS o ON true
CROSS JOIN (
    SELECT
        count(*) FILTER (WHERE g.parked) AS parked,
        count(*) FILTER (WHERE NOT g.parked) AS retrying
    FROM listener.ledger AS g
    WHERE g.failures > 0
        AND EXISTS (SELECT FROM {backend}.library AS b WHERE b.id = g.library_id OFFSET 0)
) AS p
CROSS JOIN (
    SELECT count(*) AS retrying
    FROM listener.rotation_failure AS n
) AS m
CROSS JOIN (
    SELECT coalesce(sum(r.cost), 0)::int AS spent
    FROM listener.refresh AS r
    WHERE r.ended_at > clock_timestamp() - %(window)s::interval
) AS f
ORDER BY l.stream

-- Reads what waits in the outbox for each stream, who follows it, how that daemon is doing, and whether its session
-- still exists. PostgreSQL hides another role's backend_start from us.
SELECT
    l.stream,
    c.backlog,
    c.oldest_seconds,
    l.holder,
    CASE
        WHEN l.holder IS NOT NULL THEN EXISTS (
            SELECT
            FROM pg_stat_activity AS a
            WHERE a.pid = l.holder_pid
                AND (a.backend_start IS NULL OR a.backend_start = l.holder_started)
        )
    END AS holder_alive,
    l.breaker,
    l.fault,
    l.held_since,
    date_part('epoch', clock_timestamp() - l.turned_at) AS stalled_seconds,
    l.woken,
    l.lml_trouble,
    l.lml_trouble_since,
    l.lml_next_try
FROM listener.lane AS l
CROSS JOIN LATERAL (
    SELECT
        count(*) AS backlog,
        date_part('epoch', clock_timestamp() - min(e.changed_at)) AS oldest_seconds
    FROM listener.change AS e
    WHERE e.stream = l.stream
) AS c
ORDER BY l.stream

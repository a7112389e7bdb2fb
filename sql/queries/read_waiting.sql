-- Returns which changes of a library row wait in the outbox, who follows the library, whether that session still
-- exists, and how LML fails to answer it.
SELECT
    c.waiting,
    c.first_at,
    c.last_at,
    l.holder,
    CASE
        WHEN l.holder IS NOT NULL THEN EXISTS (
            SELECT
            FROM pg_stat_activity AS a
            WHERE a.pid = l.holder_pid
                AND (a.backend_start IS NULL OR a.backend_start = l.holder_started)
        )
    END AS holder_alive,
    l.lml_trouble,
    l.lml_trouble_since,
    l.lml_next_try
FROM listener.lane AS l
CROSS JOIN LATERAL (
    SELECT
        count(*) AS waiting,
        min(e.changed_at) AS first_at,
        max(e.changed_at) AS last_at
    FROM listener.change AS e
    WHERE e.stream = l.stream
        AND e.row_id = %(library_id)s
) AS c
WHERE l.stream = 'library'

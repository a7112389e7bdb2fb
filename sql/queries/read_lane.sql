-- Returns who follows a stream and whether its session is gone. PostgreSQL hides another role's backend_start.
SELECT
    l.holder,
    l.holder_pid,
    l.beat,
    NOT EXISTS (
        SELECT
        FROM pg_stat_activity AS a
        WHERE a.pid = l.holder_pid
            AND (a.backend_start IS NULL OR a.backend_start = l.holder_started)
    ) AS gone
FROM listener.lane AS l
WHERE l.stream = %(stream)s

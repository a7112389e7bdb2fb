-- Reads the latest runs. One without an end is still running only if its process has a session and shows signs of
-- life: a process whose own session was cut could not record how the run ended, and went on with others.
SELECT
    r.run_id,
    r.kind,
    r.cause,
    r.holder,
    r.started_at,
    r.ended_at,
    CASE
        WHEN r.outcome IS NOT NULL THEN r.outcome
        WHEN EXISTS (
            SELECT
            FROM pg_stat_activity AS a
            WHERE a.application_name = r.holder
                AND a.datname = current_database()
        )
        AND r.seen_at > now() - interval '5 minutes' THEN 'running'
        ELSE 'lost'
    END AS outcome,
    r.reason,
    r.tally
FROM listener.run AS r
ORDER BY r.started_at DESC, r.run_id DESC
LIMIT 10

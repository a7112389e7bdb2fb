-- Reads the last run of each kind that no command started and that ended, and when a run of the kind last succeeded. A
-- run whose process no longer shows signs of life is lost, as in the list of runs.
SELECT
    k.kind,
    l.started_at,
    l.outcome,
    l.reason,
    s.succeeded_at
FROM unnest(%(kinds)s::text[]) AS k (kind)
LEFT JOIN LATERAL (
    SELECT
        r.started_at,
        coalesce(r.outcome, 'lost') AS outcome,
        r.reason
    FROM listener.run AS r
    WHERE r.kind = k.kind
        AND r.cause <> 'command'
        AND (
            r.outcome IS NOT NULL
            OR r.seen_at <= now() - interval '5 minutes'
            OR NOT EXISTS (
                SELECT
                FROM pg_stat_activity AS a
                WHERE a.application_name = r.holder
                    AND a.datname = current_database()
            )
        )
    ORDER BY r.started_at DESC
    LIMIT 1
) AS l ON true
LEFT JOIN LATERAL (
    SELECT r.ended_at AS succeeded_at
    FROM listener.run AS r
    WHERE r.kind = k.kind
        AND r.outcome = 'done'
    ORDER BY r.started_at DESC
    LIMIT 1
) AS s ON true
WHERE l.outcome IS NOT NULL
    OR s.succeeded_at IS NOT NULL

-- Finds the LML identities in rotation, each once, with LML's useful answer since a given time, if any; those that
-- answered recently come first.
SELECT
    i.identity_id,
    coalesce(w.known, false) AS known,
    w.answered
FROM (
    SELECT DISTINCT r.lml_identity_id AS identity_id
    FROM {backend}.rotation AS r
    WHERE r.lml_identity_id IS NOT NULL
        AND (r.kill_date IS NULL OR r.kill_date > CURRENT_DATE)
) AS i
LEFT JOIN LATERAL (
    SELECT
        w.failures = 0 AND w.asked_at > now() - %(recent)s::interval AS known,
        CASE
            WHEN w.failures = 0 AND w.asked_at >= %(since)s AND w.asked_at <= now() THEN w.status
        END AS answered
    FROM listener.warmth AS w
    WHERE w.identity_id = i.identity_id
    OFFSET 0
) AS w ON true
ORDER BY known DESC, i.identity_id

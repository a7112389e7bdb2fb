-- Records LML's answers about identities, and how many errors in a row each has had.
INSERT INTO listener.warmth AS w (identity_id, status, asked_at, failures)
SELECT
    n.identity_id,
    n.status,
    clock_timestamp(),
    (n.status = 'error')::int
FROM unnest(%(identity_ids)b::int[], %(statuses)b::text[]) AS n (identity_id, status)
ORDER BY n.identity_id
ON CONFLICT (identity_id) DO UPDATE
SET status = excluded.status,
    asked_at = excluded.asked_at,
    renewed_at = CASE WHEN excluded.status = 'error' THEN w.renewed_at ELSE excluded.asked_at END,
    failures = CASE WHEN excluded.status = 'error' THEN w.failures + 1 ELSE 0 END

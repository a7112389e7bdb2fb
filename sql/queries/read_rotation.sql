-- Reads those of some rotation rows that are in rotation now, and whether LML has recently given a useful answer about
-- the identity of each.
SELECT
    r.id,
    r.lml_identity_id,
    r.discogs_release_id,
    r.album_id,
    coalesce(l.artist_name, r.artist_name) AS artist_name,
    coalesce(l.album_title, r.album_title) AS album_title,
    coalesce(w.known, false) AS known,
    f.failures,
    date_part('epoch', now() - f.failing_since) AS lasting,
    date_part('epoch', now() - f.failed_at) AS ago
FROM {backend}.rotation AS r
LEFT JOIN LATERAL (
    SELECT
        b.artist_name,
        b.album_title
    FROM {backend}.library AS b
    WHERE b.id = r.album_id
    OFFSET 0
) AS l ON true
LEFT JOIN LATERAL (
    SELECT w.failures = 0 AND w.asked_at > now() - %(recent)s::interval AS known
    FROM listener.warmth AS w
    WHERE w.identity_id = r.lml_identity_id
    OFFSET 0
) AS w ON true
LEFT JOIN listener.rotation_failure AS f ON f.row_id = r.id
WHERE r.id = ANY (%(row_ids)b::int[])
    AND (r.kill_date IS NULL OR r.kill_date > CURRENT_DATE)
ORDER BY r.id

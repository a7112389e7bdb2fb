-- Counts the rows in rotation by whether they can be warmed, and by whether they were warmed recently.
SELECT
    count(*) AS active,
    count(r.discogs_release_id) AS with_discogs_id,
    count(r.lml_identity_id) AS with_identity,
    count(*) FILTER (WHERE r.discogs_release_id IS NOT NULL AND r.lml_identity_id IS NOT NULL) AS resolved,
    coalesce(
        count(*) FILTER (WHERE r.discogs_release_id IS NOT NULL AND r.lml_identity_id IS NOT NULL)::float8
            / nullif(count(r.discogs_release_id), 0),
        1
    ) AS coverage,
    count(DISTINCT r.lml_identity_id) AS identities,
    count(*) FILTER (WHERE w.warmed) AS warmed_24h,
    min(w.renewed_at) AS coldest
FROM {backend}.rotation AS r
LEFT JOIN LATERAL (
    SELECT
        w.status = 'warmed' AND w.asked_at > now() - interval '24 hours' AS warmed,
        w.renewed_at
    FROM listener.warmth AS w
    WHERE w.identity_id = r.lml_identity_id
    OFFSET 0
) AS w ON true
WHERE r.kill_date IS NULL
    OR r.kill_date > CURRENT_DATE

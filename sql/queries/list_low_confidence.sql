-- Lists identities with low confidence, the lowest first, without a person's own.
SELECT
    l.id AS row_id,
    l.artist_name,
    l.album_title,
    l.code_volume_letters AS letters,
    i.last_verified_at AS since,
    format('confidence %%s by %%s', round(i.confidence::numeric, 2), i.method) AS why,
    l.id AS library_id
FROM {backend}.library_identity AS i
INNER JOIN {backend}.library AS l ON l.id = i.library_id
WHERE i.confidence < %(below)s
    AND i.method <> 'manual'
ORDER BY i.confidence, l.id
LIMIT %(limit)s
OFFSET %(skip)s

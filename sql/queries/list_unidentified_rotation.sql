-- Lists what is in rotation now without a Discogs release or an LML identity, the longest in rotation first.
SELECT
    r.id AS row_id,
    coalesce(l.artist_name, r.artist_name) AS artist_name,
    coalesce(l.album_title, r.album_title) AS album_title,
    l.code_volume_letters AS letters,
    r.add_date::timestamptz AS since,
    CASE WHEN r.discogs_release_id IS NULL THEN 'no Discogs release' ELSE 'no LML identity' END AS why,
    r.album_id AS library_id
FROM {backend}.rotation AS r
LEFT JOIN {backend}.library AS l ON l.id = r.album_id
WHERE (r.kill_date IS NULL OR r.kill_date > CURRENT_DATE)
    AND (r.discogs_release_id IS NULL OR r.lml_identity_id IS NULL)
ORDER BY r.add_date, r.id
LIMIT %(limit)s
OFFSET %(skip)s

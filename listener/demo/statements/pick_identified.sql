-- Picks a release that has an identity and is not in rotation.
SELECT
    l.id,
    l.artist_name,
    l.album_title,
    (SELECT count(*) FROM {backend}.library_identity_source AS s WHERE s.library_id = l.id) AS sources
FROM {backend}.library AS l
INNER JOIN {backend}.library_identity AS i ON i.library_id = l.id
WHERE NOT EXISTS (SELECT FROM {backend}.rotation AS r WHERE r.album_id = l.id)
ORDER BY sources DESC, l.id
LIMIT 1;

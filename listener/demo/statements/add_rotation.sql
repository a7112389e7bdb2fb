-- Puts the newest release into rotation.
INSERT INTO {backend}.rotation (album_id, rotation_bin, artist_name, album_title, discogs_release_id, lml_identity_id)
SELECT l.id, 'H', l.artist_name, l.album_title, %(discogs_release_id)s, %(lml_identity_id)s
FROM {backend}.library AS l
ORDER BY l.id DESC
LIMIT 1
RETURNING id;

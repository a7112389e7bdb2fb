-- Adds one release; its artist must exist.
INSERT INTO {backend}.library (artist_id, artist_name, album_title, label, code_volume_letters)
SELECT min(a.id), a.artist_name, %(album_title)s, %(label)s, %(letters)s
FROM {backend}.artists AS a
WHERE a.artist_name = %(artist_name)s
GROUP BY a.artist_name
RETURNING id;

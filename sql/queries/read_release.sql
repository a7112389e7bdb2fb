-- Reads what a row of the library says.
SELECT
    l.artist_name,
    l.album_title,
    l.code_volume_letters
FROM {backend}.library AS l
WHERE l.id = %(library_id)s

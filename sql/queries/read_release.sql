-- Reads the content of a row of the library.
SELECT
    l.artist_name,
    l.album_title,
    l.code_volume_letters
FROM {backend}.library AS l
WHERE l.id = %(library_id)s

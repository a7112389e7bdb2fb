-- Adds a catalogue's releases as library rows, in the catalogue's order; their artists must exist.
INSERT INTO {backend}.library (artist_id, artist_name, album_title, label, code_volume_letters)
SELECT artist.id, release.artist_name, release.album_title, release.label, release.letters
FROM unnest(
    %(artist_names)s::text[],
    %(album_titles)s::text[],
    %(labels)s::text[],
    %(letters)s::text[]
) WITH ORDINALITY AS release (artist_name, album_title, label, letters, place)
JOIN (
    SELECT min(id) AS id, artist_name
    FROM {backend}.artists
    GROUP BY artist_name
) AS artist ON artist.artist_name = release.artist_name
ORDER BY release.place;

-- Adds the credits of a compilation, and the missing artists of all but the last credit.
WITH credited AS (
    SELECT
        c.artist_name,
        c.track_title,
        c.place
    FROM unnest(%(artist_names)s::text[], %(track_titles)s::text[]) WITH ORDINALITY
        AS c (artist_name, track_title, place)
),
added AS (
    INSERT INTO {backend}.artists (artist_name)
    SELECT DISTINCT c.artist_name
    FROM credited AS c
    WHERE c.place < (SELECT max(d.place) FROM credited AS d)
        AND NOT EXISTS (
            SELECT
            FROM {backend}.artists AS a
            WHERE {backend}.fold_artist_name(a.artist_name) = {backend}.fold_artist_name(c.artist_name)
        )
)
INSERT INTO {backend}.compilation_track_artist (library_id, artist_name, track_title)
SELECT
    %(library_id)s,
    c.artist_name,
    c.track_title
FROM credited AS c
ORDER BY c.place;

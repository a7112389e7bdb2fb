-- Counts the credits of a compilation, and those among them that are linked to an artist.
SELECT
    count(*) AS credits,
    count(t.track_artist_id) AS linked
FROM {backend}.compilation_track_artist AS t
WHERE t.library_id = %(id)s;

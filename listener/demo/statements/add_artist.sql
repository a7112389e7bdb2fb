-- Adds an artist, unless there is one of that name.
INSERT INTO {backend}.artists (artist_name)
SELECT %(artist_name)s::text
WHERE NOT EXISTS (
    SELECT FROM {backend}.artists AS a
    WHERE a.artist_name = %(artist_name)s::text
);

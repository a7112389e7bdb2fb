-- Adds an artist, unless one of that name is there.
INSERT INTO {backend}.artists (artist_name)
SELECT %(artist_name)s::text
WHERE NOT EXISTS (
    SELECT FROM {backend}.artists AS a
    WHERE a.artist_name = %(artist_name)s::text
);

-- Adds every artist of a catalogue that the backend does not have yet.
INSERT INTO {backend}.artists (artist_name)
SELECT DISTINCT release.artist_name
FROM unnest(%(artist_names)s::text[]) AS release (artist_name)
WHERE NOT EXISTS (
    SELECT FROM {backend}.artists AS known
    WHERE known.artist_name = release.artist_name
);

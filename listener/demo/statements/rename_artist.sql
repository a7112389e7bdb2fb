-- Renames an artist on all releases in one statement, as the backend's cascade does.
WITH renamed AS (
    UPDATE {backend}.artists
    SET artist_name = %(artist_name)s::text
    WHERE id = %(artist_id)s
)
UPDATE {backend}.library
SET artist_name = %(artist_name)s::text,
    last_modified = now()
WHERE artist_id = %(artist_id)s
RETURNING id;

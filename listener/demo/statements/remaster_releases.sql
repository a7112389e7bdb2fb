-- Changes the titles of some releases.
UPDATE {backend}.library
SET album_title = left(album_title, 115) || ' (Remastered)',
    last_modified = now()
WHERE id = ANY (%(ids)s::int[])
RETURNING id;

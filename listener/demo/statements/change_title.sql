-- Gives one release another title.
UPDATE {backend}.library
SET album_title = %(album_title)s,
    last_modified = now()
WHERE id = %(id)s
RETURNING id;

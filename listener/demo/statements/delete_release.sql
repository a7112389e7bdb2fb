-- Deletes a release.
DELETE FROM {backend}.library
WHERE id = %(id)s;

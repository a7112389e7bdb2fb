-- Removes the identity of a release that is about to be deleted.
DELETE FROM {backend}.library_identity
WHERE library_id = %(id)s;

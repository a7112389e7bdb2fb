-- Removes the evidence of a release that is about to be deleted.
DELETE FROM {backend}.library_identity_source
WHERE library_id = %(id)s;

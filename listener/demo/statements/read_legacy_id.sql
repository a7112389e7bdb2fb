-- Reads the id of a release in LML's per-track store.
SELECT l.legacy_release_id
FROM {backend}.library AS l
WHERE l.id = %(id)s;

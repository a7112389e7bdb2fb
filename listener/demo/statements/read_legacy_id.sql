-- Reads what LML's per-track store calls a release.
SELECT l.legacy_release_id
FROM {backend}.library AS l
WHERE l.id = %(id)s;

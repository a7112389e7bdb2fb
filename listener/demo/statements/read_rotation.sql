-- Reads LML's identity of a rotation row.
SELECT r.lml_identity_id
FROM {backend}.rotation AS r
WHERE r.id = %(id)s;

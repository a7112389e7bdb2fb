-- Deletes the failures of rotation rows that no longer exist.
DELETE FROM listener.rotation_failure AS f
WHERE NOT EXISTS (SELECT FROM {backend}.rotation AS r WHERE r.id = f.row_id)

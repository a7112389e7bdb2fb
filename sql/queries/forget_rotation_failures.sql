-- Removes the recorded failures of some rotation rows.
DELETE FROM listener.rotation_failure AS f
WHERE f.row_id = ANY (%(row_ids)b::int[])

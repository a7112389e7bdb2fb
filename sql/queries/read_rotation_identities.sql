-- Reads LML's identity of rotation rows that are being played now.
SELECT
    r.id,
    r.lml_identity_id
FROM {backend}.rotation AS r
WHERE r.id = ANY (%(row_ids)b::int[])
    AND r.lml_identity_id IS NOT NULL
    AND (r.kill_date IS NULL OR r.kill_date > CURRENT_DATE)

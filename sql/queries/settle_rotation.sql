-- Removes changes of rotation rows that are handled, and what was remembered of these rows' failures.
WITH forgotten AS (
    DELETE FROM listener.rotation_failure AS f
    WHERE f.row_id = ANY (%(row_ids)b::int[])
)
DELETE FROM listener.change AS c
WHERE c.stream = 'rotation'
    AND c.seq = ANY (%(seqs)b::bigint[])

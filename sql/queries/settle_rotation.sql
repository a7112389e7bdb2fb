-- Removes changes of rotation rows that are handled, and what was remembered of these rows' failures.
WITH forgotten AS (
    DELETE FROM listener.rotation_failure AS f
    WHERE f.row_id = ANY (%(row_ids)b::int[])
)
DELETE FROM listener.change AS c
WHERE c.stream = 'rotation'
    -- A plan made on an empty outbox would filter by the numbers alone, having read the whole stream.
    AND c.seq BETWEEN (SELECT min(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND (SELECT max(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND c.seq = ANY (%(seqs)b::bigint[])

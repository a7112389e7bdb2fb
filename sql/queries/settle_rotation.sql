-- Removes handled changes of rotation rows from the outbox, and these rows' recorded failures.
WITH forgotten AS (
    DELETE FROM listener.rotation_failure AS f
    WHERE f.row_id = ANY (%(row_ids)b::int[])
)
DELETE FROM listener.change AS c
WHERE c.stream = 'rotation'
    -- Without bounds, a plan made on an empty outbox would read the whole stream and filter it by seq.
    AND c.seq BETWEEN (SELECT min(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND (SELECT max(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND c.seq = ANY (%(seqs)b::bigint[])

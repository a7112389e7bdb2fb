-- Removes entries of the outbox that are handled.
DELETE FROM listener.change AS c
WHERE c.stream = %(stream)s
    -- A plan made on an empty outbox would filter by the numbers alone, having read the whole stream.
    AND c.seq BETWEEN (SELECT min(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND (SELECT max(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND c.seq = ANY (%(seqs)b::bigint[])

-- Removes handled entries from the outbox.
DELETE FROM listener.change AS c
WHERE c.stream = %(stream)s
    -- Without bounds, a plan made on an empty outbox would read the whole stream and filter it by seq.
    AND c.seq BETWEEN (SELECT min(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND (SELECT max(s.seq) FROM unnest(%(seqs)b::bigint[]) AS s (seq))
    AND c.seq = ANY (%(seqs)b::bigint[])

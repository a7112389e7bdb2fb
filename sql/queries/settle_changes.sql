-- Removes entries of the outbox that are handled.
DELETE FROM listener.change AS c
WHERE c.stream = %(stream)s
    AND c.seq = ANY (%(seqs)b::bigint[])

-- Claims changes for the one daemon that follows the stream: oldest first, without those it has already.
-- The anti-join stays a hashed subplan; "seq IN (SELECT ... LIMIT ...)" forms flip to scans of the whole outbox.
SELECT
    c.seq,
    c.row_id,
    clock_timestamp() - c.changed_at AS waited
FROM listener.change AS c
WHERE c.stream = %(stream)s
    AND c.seq > %(after)s
    AND c.seq NOT IN (SELECT h.seq FROM unnest(%(held)b::bigint[]) AS h (seq))
ORDER BY c.seq
LIMIT %(limit)s

-- Records in the ledger what becomes of the credits of the compilations that were just accepted.
UPDATE listener.ledger AS g
SET tracks = n.tracks
FROM unnest(%(library_ids)b::int[], %(tracks)s::jsonb[]) AS n (library_id, tracks)
WHERE g.library_id = ANY (%(library_ids)b::int[])
    AND g.library_id = n.library_id

-- Reads, batch by batch, the failed ledger rows that are due, in that order, with the given degrees of suspicion (of
-- spoiling calls). The index on failing rows is read in order, and OFFSET 0 makes the join look up each row by key.
SELECT
    g.next_ask_at,
    g.library_id,
    'failed' AS reason,
    l.compilation
FROM listener.ledger AS g
CROSS JOIN LATERAL (
    SELECT
        listener.is_compilation(b.code_volume_letters)
        OR EXISTS (SELECT FROM {backend}.compilation_track_artist AS t WHERE t.library_id = b.id) AS compilation
    FROM {backend}.library AS b
    WHERE b.id = g.library_id
        AND b.artist_name IS NOT NULL
        AND b.id >= %(since_id)s
        AND b.id %% %(partitions)s = %(partition)s
    OFFSET 0
) AS l
WHERE g.failures > 0
    AND g.next_ask_at <= coalesce(%(until)s::timestamptz, now())
    AND (g.next_ask_at, g.library_id) > (%(after_time)s, %(after_id)s)
    AND g.suspicion BETWEEN %(least_suspect)s AND %(most_suspect)s
ORDER BY g.next_ask_at, g.library_id
LIMIT %(limit)s

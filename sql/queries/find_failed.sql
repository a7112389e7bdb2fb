-- Pages through the ledger's failed rows within a range of suspicion whose time to be asked has come, the longest due
-- first. Returns none while a run holds the lock on this search: it asks about them itself. The index on failing rows
-- is read in order, and OFFSET 0 keeps the join to a look-up by key for each.
WITH free AS MATERIALIZED (
    SELECT %(lock_number)s::int IS NULL OR pg_try_advisory_xact_lock(%(lock_class)s::int, %(lock_number)s::int)
        AS ours
)
SELECT
    g.next_ask_at,
    g.library_id,
    'failed' AS reason,
    l.compilation
FROM free AS f
CROSS JOIN listener.ledger AS g
CROSS JOIN LATERAL (
    SELECT
        b.code_volume_letters LIKE 'Z%%'
        OR EXISTS (SELECT FROM {backend}.compilation_track_artist AS t WHERE t.library_id = b.id) AS compilation
    FROM {backend}.library AS b
    WHERE b.id = g.library_id
        AND b.artist_name IS NOT NULL
        AND b.id >= %(since_id)s
        AND b.id %% %(partitions)s = %(partition)s
    OFFSET 0
) AS l
WHERE f.ours
    AND g.failures > 0
    AND g.next_ask_at <= coalesce(%(until)s::timestamptz, now())
    AND (g.next_ask_at, g.library_id) > (%(after_time)s, %(after_id)s)
    AND g.suspicion BETWEEN %(least_suspect)s AND %(most_suspect)s
ORDER BY g.next_ask_at, g.library_id
LIMIT %(limit)s

-- Pages through the ledger rows whose time to be asked has come, in that order. A row outside the scope comes
-- without a reason, so that the page still tells where the next one begins. OFFSET 0 keeps the join to a look-up by
-- key for each row: PostgreSQL would else merge the page with the whole library.
SELECT
    g.next_ask_at,
    g.library_id,
    CASE
        WHEN l.id IS NULL THEN NULL
        WHEN g.failures > 0 THEN 'failed'
        WHEN g.outcome IS NULL THEN 'never'
        WHEN g.outcome IN ('single_artist', 'visited_compilation') THEN 'resolved'
        ELSE 'unresolved'
    END AS reason,
    l.code_volume_letters LIKE 'Z%%'
        OR EXISTS (SELECT FROM {backend}.compilation_track_artist AS t WHERE t.library_id = l.id) AS compilation
FROM (
    SELECT
        d.next_ask_at,
        d.library_id,
        d.failures,
        d.outcome
    FROM listener.ledger AS d
    WHERE d.next_ask_at <= %(until)s
        AND (d.next_ask_at, d.library_id) > (%(after_time)s, %(after_id)s)
    ORDER BY d.next_ask_at, d.library_id
    LIMIT %(limit)s
) AS g
LEFT JOIN LATERAL (
    SELECT
        b.id,
        b.code_volume_letters
    FROM {backend}.library AS b
    WHERE b.id = g.library_id
        AND b.artist_name IS NOT NULL
        AND b.id >= %(since_id)s
        AND b.id %% %(partitions)s = %(partition)s
        AND (%(include_null_canonical)s OR b.canonical_entity_id IS NOT NULL)
    OFFSET 0
) AS l ON true
ORDER BY g.next_ask_at, g.library_id

-- Reads, batch by batch, the ledger rows that are due by time, in that order. A row outside the scope comes without a
-- reason, so that the batch still shows where the next one begins. If a row's question has changed and no change of it
-- is in the outbox, capture missed it; the outbox is read only if there are such rows. Failed rows have a search of
-- their own. OFFSET 0 makes the join look up each row by key: otherwise PostgreSQL would merge the batch with the
-- whole library.
WITH batch AS MATERIALIZED (
    SELECT
        g.next_ask_at,
        g.library_id,
        g.outcome,
        l.id IS NOT NULL AS in_scope,
        l.code_volume_letters,
        g.question <> l.digest AS differs
    FROM (
        SELECT
            d.next_ask_at,
            d.library_id,
            d.outcome,
            d.question
        FROM listener.ledger AS d
        WHERE d.failures = 0
            AND d.next_ask_at <= %(until)s
            AND (d.next_ask_at, d.library_id) > (%(after_time)s, %(after_id)s)
        ORDER BY d.next_ask_at, d.library_id
        LIMIT %(limit)s
    ) AS g
    LEFT JOIN LATERAL (
        SELECT
            b.id,
            b.code_volume_letters,
            listener.question_digest(
                b.artist_name, b.album_title, b.legacy_release_id, listener.is_compilation(b.code_volume_letters)
            ) AS digest
        FROM {backend}.library AS b
        WHERE b.id = g.library_id
            AND b.artist_name IS NOT NULL
            AND b.id >= %(since_id)s
            AND b.id %% %(partitions)s = %(partition)s
            AND (%(include_null_canonical)s OR b.canonical_entity_id IS NOT NULL)
        OFFSET 0
    ) AS l ON true
),
differing AS MATERIALIZED (
    SELECT p.library_id
    FROM batch AS p
    WHERE p.differs
),
waiting AS MATERIALIZED (
    SELECT DISTINCT c.row_id
    FROM listener.change AS c
    WHERE EXISTS (SELECT FROM differing)
        AND c.stream = 'library'
        AND (c.row_id IN (SELECT d.library_id FROM differing AS d)) IS TRUE
)
SELECT
    p.next_ask_at,
    p.library_id,
    CASE
        WHEN NOT p.in_scope THEN NULL
        WHEN p.differs AND p.library_id NOT IN (SELECT w.row_id FROM waiting AS w) THEN 'changed'
        ELSE listener.reason_after(p.outcome)
    END AS reason,
    listener.is_compilation(p.code_volume_letters)
        OR EXISTS (SELECT FROM {backend}.compilation_track_artist AS t WHERE t.library_id = p.library_id) AS compilation
FROM batch AS p
ORDER BY p.next_ask_at, p.library_id

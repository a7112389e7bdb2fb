-- Finds, among the next few ids, the compilations that were asked about before, whenever their next question is due:
-- those that our own tables call compilations and those that LML does. Parked rows are left to a person. Returns one
-- row without an id if there is none, and no upper end after the last id. The bounds are repeated for the ledger,
-- because PostgreSQL does not carry them through the join.
WITH window_end AS MATERIALIZED (
    SELECT max(w.id) AS upper
    FROM (
        SELECT l.id
        FROM {backend}.library AS l
        WHERE l.id > %(after)s
        ORDER BY l.id
        LIMIT %(window)s
    ) AS w
),
asked AS MATERIALIZED (
    SELECT
        l.id AS library_id,
        CASE
            WHEN g.failures > 0 THEN 'failed'
            ELSE listener.reason_after(g.outcome)
        END AS reason,
        g.outcome IN ('compilation', 'visited_compilation') AS found,
        listener.is_compilation(l.code_volume_letters)
            OR EXISTS (SELECT FROM {backend}.compilation_track_artist AS t WHERE t.library_id = l.id) AS compilation
    FROM {backend}.library AS l
    INNER JOIN listener.ledger AS g
        ON g.library_id = l.id
        AND g.library_id > %(after)s
        AND g.library_id <= (SELECT e.upper FROM window_end AS e)
    WHERE l.id > %(after)s
        AND l.id <= (SELECT e.upper FROM window_end AS e)
        AND l.artist_name IS NOT NULL
        AND l.id >= %(since_id)s
        AND l.id %% %(partitions)s = %(partition)s
        AND (%(include_null_canonical)s OR l.canonical_entity_id IS NOT NULL)
        AND g.outcome IS NOT NULL
        AND NOT g.parked
)
SELECT
    e.upper,
    a.library_id,
    a.reason,
    a.compilation
FROM window_end AS e
LEFT JOIN asked AS a ON a.compilation OR a.found
ORDER BY a.library_id

-- Finds, among the next few credits, the releases that gained one since they were last asked about, and whose answer
-- would otherwise still hold: the backend creates a release first, and its credits later. A release is found only by
-- its latest credit. Returns one row without a release if there is none, and no upper end after the last credit.
WITH window_end AS MATERIALIZED (
    SELECT max(w.id) AS upper
    FROM (
        SELECT t.id
        FROM {backend}.compilation_track_artist AS t
        WHERE t.id > %(after)s
        ORDER BY t.id
        LIMIT %(window)s
    ) AS w
),
credited AS MATERIALIZED (
    SELECT
        t.library_id,
        max(t.id) AS last_credit
    FROM (
        -- In order of id: grouped right away, they would be looked up by release among all credits.
        SELECT
            n.id,
            n.library_id
        FROM {backend}.compilation_track_artist AS n
        WHERE n.id > %(after)s
            AND n.id <= (SELECT e.upper FROM window_end AS e)
        ORDER BY n.id
        OFFSET 0
    ) AS t
    GROUP BY t.library_id
),
due AS MATERIALIZED (
    SELECT
        c.library_id,
        listener.reason_after(g.outcome) AS reason
    FROM credited AS c
    CROSS JOIN LATERAL (
        -- By release alone: an index on times would find nearly all of them.
        SELECT
            b.outcome,
            b.last_credit,
            b.failures,
            b.next_ask_at
        FROM listener.ledger AS b
        WHERE b.library_id = c.library_id
        OFFSET 0
    ) AS g
    CROSS JOIN LATERAL (
        SELECT
        FROM {backend}.library AS l
        WHERE l.id = c.library_id
            AND l.artist_name IS NOT NULL
            AND l.id >= %(since_id)s
            AND l.id %% %(partitions)s = %(partition)s
            AND (%(include_null_canonical)s OR l.canonical_entity_id IS NOT NULL)
            AND c.last_credit = (
                SELECT max(m.id)
                FROM (
                    -- By release, not by id: everything that came later has a higher id.
                    SELECT n.id
                    FROM {backend}.compilation_track_artist AS n
                    WHERE n.library_id = l.id
                    OFFSET 0
                ) AS m
            )
        OFFSET 0
    ) AS b
    WHERE g.last_credit < c.last_credit
        AND g.failures = 0
        AND g.outcome IS NOT NULL
        AND g.next_ask_at > now()
)
SELECT
    e.upper,
    d.library_id,
    d.reason,
    d.library_id IS NOT NULL AS compilation
FROM window_end AS e
LEFT JOIN due AS d ON true
ORDER BY d.library_id

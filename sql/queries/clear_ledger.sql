-- Removes deleted releases from the ledger, in one window of ids; returns where the window ends, NULL after the last.
WITH window_end AS MATERIALIZED (
    SELECT max(w.library_id) AS upper
    FROM (
        SELECT g.library_id
        FROM listener.ledger AS g
        WHERE g.library_id > %(after)s
        ORDER BY g.library_id
        LIMIT %(window)s
    ) AS w
),
cleared AS (
    DELETE FROM listener.ledger AS g
    WHERE g.library_id > %(after)s
        AND g.library_id <= (SELECT e.upper FROM window_end AS e)
        AND NOT EXISTS (
            SELECT
            FROM {backend}.library AS l
            WHERE l.id = g.library_id
                AND l.id > %(after)s
                AND l.id <= (SELECT e.upper FROM window_end AS e)
        )
    RETURNING g.library_id
)
SELECT
    e.upper,
    (SELECT count(*) FROM cleared) AS cleared
FROM window_end AS e

-- Removes changes of rows that have a later one in the outbox, which stands for all: up to so many at a time, and only
-- from an outbox that holds more entries than given. A change is asked about as its row is then, and a later one that is
-- seen here was committed before.
DELETE FROM listener.change AS c
WHERE c.stream = %(stream)s
    AND c.seq = ANY (ARRAY(
        SELECT d.seq
        FROM (
            SELECT
                e.seq,
                lead(e.seq) OVER (PARTITION BY e.row_id ORDER BY e.seq) AS later,
                count(*) OVER () AS entries
            FROM listener.change AS e
            WHERE e.stream = %(stream)s
        ) AS d
        WHERE d.later IS NOT NULL
            AND d.entries > %(more_than)s
        LIMIT %(limit)s
    ))

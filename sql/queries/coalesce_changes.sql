-- Removes changes of rows that have a later change in the outbox: a limited number at a time, and only from an outbox
-- with more entries than given. The later change covers them all, because LML is asked about the row as it is then,
-- and a later change that is visible here was committed before.
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

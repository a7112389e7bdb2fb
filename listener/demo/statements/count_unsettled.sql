-- Counts the entries that some rows of a stream still have in the outbox.
SELECT count(*) AS unsettled
FROM listener.change AS c
WHERE c.stream = %(stream)s
    AND c.row_id = ANY (%(ids)s::int[]);

-- Remembers rows that could not be answered, each with when to try again (infinity: parked), unless a newer question
-- was answered or failed meanwhile, and settles the changes given, of rows that are remembered.
WITH failed AS (
    INSERT INTO listener.ledger AS g
        (library_id, question, ask_order, next_ask_at, failures, failure, failure_detail, failed_at)
    SELECT
        f.library_id,
        f.question,
        %(ask_order)s,
        coalesce(now() + f.ask_again * interval '1 second', 'infinity'),
        f.failures,
        f.failure,
        f.detail,
        now()
    FROM unnest(
        %(library_ids)b::int[], %(questions)b::bytea[], %(ask_agains)s::float8[], %(failure_counts)b::int[],
        %(failures)b::text[], %(details)b::text[]
    ) AS f (library_id, question, ask_again, failures, failure, detail)
    ORDER BY f.library_id
    ON CONFLICT (library_id) DO UPDATE
    SET question = excluded.question,
        identity_question = nullif(coalesce(g.identity_question, g.question), excluded.question),
        ask_order = excluded.ask_order,
        next_ask_at = excluded.next_ask_at,
        failures = excluded.failures,
        failure = excluded.failure,
        failure_detail = excluded.failure_detail,
        failed_at = excluded.failed_at
    WHERE g.ask_order < excluded.ask_order
    RETURNING
        g.library_id
)
DELETE FROM listener.change AS c
USING unnest(%(change_seqs)b::bigint[], %(change_rows)b::int[]) AS e (seq, row_id)
INNER JOIN failed AS f ON f.library_id = e.row_id
WHERE c.stream = 'library'
    AND c.seq = e.seq

-- Records rows that could not be answered, each with when to try again, unless a newer question has been answered or
-- has failed meanwhile; settles the given changes of the recorded rows.
WITH failed AS (
    INSERT INTO listener.ledger AS g
        (library_id, question, ask_order, next_ask_at, failures, suspicion, parked, failure, failure_detail, failed_at,
        failing_since)
    SELECT
        f.library_id,
        f.question,
        %(ask_order)s,
        now() + f.ask_again * interval '1 second',
        f.failures,
        f.suspicion,
        f.parked,
        f.failure,
        f.detail,
        now(),
        now()
    FROM unnest(
        %(library_ids)b::int[], %(questions)b::bytea[], %(ask_agains)s::float8[], %(failure_counts)b::int[],
        %(suspicions)b::int[], %(parked)s::boolean[], %(failures)b::text[], %(details)b::text[]
    ) AS f (library_id, question, ask_again, failures, suspicion, parked, failure, detail)
    ORDER BY f.library_id
    ON CONFLICT (library_id) DO UPDATE
    SET question = excluded.question,
        identity_question = nullif(coalesce(g.identity_question, g.question), excluded.question),
        ask_order = excluded.ask_order,
        next_ask_at = excluded.next_ask_at,
        failures = excluded.failures,
        suspicion = excluded.suspicion,
        parked = excluded.parked,
        failure = excluded.failure,
        failure_detail = excluded.failure_detail,
        failed_at = excluded.failed_at,
        -- The row may have been answered since its earlier failures.
        failing_since = CASE
            WHEN excluded.failures > 1 THEN coalesce(g.failing_since, excluded.failing_since)
            ELSE excluded.failing_since
        END
    WHERE g.ask_order < excluded.ask_order
    RETURNING g.library_id
),
handled AS MATERIALIZED (
    SELECT e.seq
    FROM unnest(%(change_seqs)b::bigint[], %(change_rows)b::int[]) AS e (seq, row_id)
    WHERE (e.row_id IN (SELECT f.library_id FROM failed AS f)) IS TRUE
),
settled AS (
    DELETE FROM listener.change AS c
    WHERE c.stream = 'library'
        -- Without bounds, a plan made on an empty outbox would read the whole stream and filter it by seq.
        AND c.seq BETWEEN (SELECT min(a.seq) FROM handled AS a) AND (SELECT max(a.seq) FROM handled AS a)
        AND c.seq = ANY (ARRAY(SELECT a.seq FROM handled AS a))
)
SELECT f.library_id
FROM failed AS f

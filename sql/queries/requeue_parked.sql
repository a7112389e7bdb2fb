-- Requeues parked rows of the library, or all of them if no ids are given: deletes their failures, puts a change of
-- each in the outbox and wakes the daemon. Rows are locked in the order in which verdicts lock them.
WITH parked AS MATERIALIZED (
    SELECT g.library_id
    FROM listener.ledger AS g
    WHERE g.failures > 0
        AND g.parked
        AND (%(library_ids)s::int[] IS NULL OR g.library_id = ANY (%(library_ids)s::int[]))
        AND EXISTS (SELECT FROM {backend}.library AS l WHERE l.id = g.library_id)
    ORDER BY g.library_id
    FOR UPDATE OF g
),
requeued AS (
    UPDATE listener.ledger AS g
    SET next_ask_at = now(),
        failures = 0,
        suspicion = 0,
        parked = false,
        failure = NULL,
        failure_detail = NULL,
        failed_at = NULL,
        failing_since = NULL
    FROM parked AS p
    WHERE g.library_id = p.library_id
    RETURNING g.library_id
),
recorded AS (
    INSERT INTO listener.change (stream, row_id)
    SELECT
        'library',
        r.library_id
    FROM requeued AS r
)
SELECT
    r.library_id,
    pg_notify('listener_library', '') AS woken
FROM requeued AS r

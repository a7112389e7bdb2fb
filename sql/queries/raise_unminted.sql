-- Puts a change in the outbox for every row in rotation that has a Discogs release but no identity, unless one is
-- already waiting; wakes the rotation's daemon as the triggers do. Returns one row if any change was added. The
-- transaction draws its id before any seq: otherwise a reader's floor could pass a seq whose transaction had no id
-- yet.
WITH started AS MATERIALIZED (
    SELECT pg_current_xact_id() AS id
),
raised AS (
    INSERT INTO listener.change (stream, row_id)
    SELECT
        'rotation',
        r.id
    FROM {backend}.rotation AS r
    CROSS JOIN started AS s
    WHERE s.id IS NOT NULL
        AND r.lml_identity_id IS NULL
        AND r.discogs_release_id IS NOT NULL
        AND (r.kill_date IS NULL OR r.kill_date > CURRENT_DATE)
        AND r.id NOT IN (SELECT c.row_id FROM listener.change AS c WHERE c.stream = 'rotation')
    ORDER BY r.id
    RETURNING row_id
)
SELECT
    r.raised,
    CASE WHEN pg_try_advisory_xact_lock_shared(1280528978, 2) THEN pg_notify('listener_rotation', '') END AS woken
FROM (SELECT count(*) AS raised FROM raised) AS r
WHERE r.raised > 0

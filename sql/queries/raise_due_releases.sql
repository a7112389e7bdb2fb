-- Puts a change in the outbox for those of the given releases that are due, as the searches would find them, unless
-- one is already waiting; wakes the library's daemon as the triggers do. Returns one row if any change was added. The
-- transaction draws its id before any seq: otherwise a reader's floor could pass a seq whose transaction had no id
-- yet.
WITH started AS MATERIALIZED (
    SELECT pg_current_xact_id() AS id
),
due AS MATERIALIZED (
    SELECT l.id
    FROM {backend}.library AS l
    LEFT JOIN LATERAL (
        SELECT
            g.library_id,
            g.question,
            g.outcome,
            g.answered_at,
            g.next_ask_at,
            g.identity_verified_at,
            g.lml_manual,
            g.failures,
            g.failed_at
        FROM listener.ledger AS g
        WHERE g.library_id = l.id
        OFFSET 0
    ) AS g ON true
    LEFT JOIN LATERAL (
        SELECT
            i.library_id,
            i.method,
            i.notes,
            i.last_verified_at
        FROM {backend}.library_identity AS i
        WHERE i.library_id = l.id
        OFFSET 0
    ) AS i ON true
    WHERE l.id = ANY (%(library_ids)b::int[])
        AND l.artist_name IS NOT NULL
        AND CASE
            WHEN g.library_id IS NULL THEN
                (i.last_verified_at BETWEEN now() - %(stale_after)s::interval AND now()) IS NOT TRUE
            WHEN g.question <> listener.question_digest(
                l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
            ) THEN true
            -- Failed rows have their own retry time and feed.
            WHEN g.failures > 0 THEN g.failed_at > now()
            ELSE g.next_ask_at <= now()
                OR listener.is_contradicted(
                    g.identity_verified_at, g.lml_manual, i.method, i.notes, i.last_verified_at
                )
                OR NOT listener.still_holds(
                    g.outcome, g.answered_at, g.lml_manual, i.library_id, i.method, i.notes, i.last_verified_at,
                    %(stale_after)s, %(retry_after)s
                )
        END
),
raised AS (
    INSERT INTO listener.change (stream, row_id)
    SELECT
        'library',
        d.id
    FROM due AS d
    CROSS JOIN started AS s
    WHERE s.id IS NOT NULL
        AND d.id NOT IN (
            SELECT c.row_id
            FROM listener.change AS c
            WHERE c.stream = 'library'
                AND (c.row_id IN (SELECT n.id FROM due AS n)) IS TRUE
        )
    ORDER BY d.id
    RETURNING row_id
)
SELECT
    r.raised,
    CASE WHEN pg_try_advisory_xact_lock_shared(1280528978, 1) THEN pg_notify('listener_library', '') END AS woken
FROM (SELECT count(*) AS raised FROM raised) AS r
WHERE r.raised > 0

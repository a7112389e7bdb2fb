-- Reads what LML would be asked about some rows now, and whether the ledger has a fresh answer to that question.
-- OFFSET 0 makes the joins look up rows by key: otherwise a plan made on empty tables would walk through all of their
-- indexes.
SELECT
    l.id AS library_id,
    l.artist_name,
    l.album_title,
    l.legacy_release_id,
    q.digest,
    coalesce(
        g.question = q.digest
        AND g.failures = 0
        AND g.next_ask_at > now()
        AND listener.still_holds(
            g.outcome, g.answered_at, g.lml_manual, i.library_id, i.method, i.notes, i.last_verified_at,
            %(stale_after)s, %(retry_after)s
        )
        AND NOT listener.is_contradicted(
            g.identity_verified_at, g.lml_manual, i.method, i.notes, i.last_verified_at
        )
        AND coalesce(t.last_credit <= g.last_credit, true),
        false
    ) AS answered,
    listener.is_compilation(l.code_volume_letters) OR t.last_credit > 0 AS compilation,
    t.last_credit,
    coalesce(g.answered_at IS NOT NULL, false) AS asked_before,
    CASE WHEN g.question = q.digest THEN nullif(g.failures, 0) END AS failures,
    date_part('epoch', now() - g.failing_since) AS lasting,
    date_part('epoch', now() - g.failed_at) AS ago,
    g.suspicion,
    g.parked
FROM {backend}.library AS l
CROSS JOIN LATERAL (
    -- Computed once, not at each use.
    SELECT listener.question_digest(
        l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
    )
    OFFSET 0
) AS q (digest)
LEFT JOIN LATERAL (
    SELECT
        g.question,
        g.outcome,
        g.answered_at,
        g.next_ask_at,
        g.last_credit,
        g.identity_verified_at,
        g.lml_manual,
        g.failures,
        g.failing_since,
        g.failed_at,
        g.suspicion,
        g.parked
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
CROSS JOIN LATERAL (
    SELECT coalesce(max(c.id), 0) AS last_credit
    FROM (
        -- Otherwise the credits of all releases might be read backwards until one of this release is found.
        SELECT b.id
        FROM {backend}.compilation_track_artist AS b
        WHERE b.library_id = l.id
        OFFSET 0
    ) AS c
) AS t
WHERE l.id = ANY (%(row_ids)b::int[])

-- Enters verdicts in the ledger if the row still asks the same question and no newer one has been answered. If an
-- identity is new, a lock on the row prevents only its deletion until the commit; rows being deleted are skipped.
INSERT INTO listener.ledger AS g
    (library_id, question, ask_order, outcome, answered_at, next_ask_at, last_credit, identity_verified_at, lml_manual)
SELECT
    v.library_id,
    v.question,
    %(ask_order)s,
    v.outcome,
    now(),
    now() + CASE
        WHEN v.outcome IN ('single_artist', 'visited_compilation') THEN %(stale_after)s::interval
        ELSE %(retry_after)s::interval
    END,
    v.last_credit,
    -- If LML found a single artist, the identity is verified next, in this transaction.
    CASE
        WHEN v.outcome = 'single_artist' THEN now()
        ELSE coalesce(
            (SELECT i.last_verified_at FROM {backend}.library_identity AS i WHERE i.library_id = v.library_id),
            '-infinity'
        )
    END,
    ARRAY(
        SELECT m.part
        FROM unnest(%(manual_ids)b::int[], %(manual_parts)b::text[]) AS m (library_id, part)
        WHERE m.library_id = v.library_id
    )
FROM unnest(%(library_ids)b::int[], %(questions)b::bytea[], %(outcomes)b::text[], %(last_credits)b::int[])
    AS v (library_id, question, outcome, last_credit)
CROSS JOIN LATERAL (
    SELECT v.outcome = 'single_artist'
        AND NOT EXISTS (SELECT FROM {backend}.library_identity AS i WHERE i.library_id = v.library_id)
    OFFSET 0
) AS n (new)
LEFT JOIN LATERAL (
    SELECT
        listener.question_digest(
            l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
        ) AS digest
    FROM {backend}.library AS l
    WHERE l.id = v.library_id
        AND n.new
    FOR KEY SHARE SKIP LOCKED
) AS locked ON true
LEFT JOIN LATERAL (
    SELECT
        listener.question_digest(
            l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
        ) AS digest
    FROM {backend}.library AS l
    WHERE l.id = v.library_id
        AND NOT n.new
    OFFSET 0
) AS seen ON true
WHERE coalesce(locked.digest, seen.digest) = v.question
ORDER BY v.library_id
ON CONFLICT (library_id) DO UPDATE
SET question = excluded.question,
    ask_order = excluded.ask_order,
    outcome = excluded.outcome,
    tracks = NULL,
    answered_at = excluded.answered_at,
    next_ask_at = excluded.next_ask_at,
    last_credit = excluded.last_credit,
    identity_verified_at = excluded.identity_verified_at,
    failures = 0,
    suspicion = 0,
    parked = false,
    failure = NULL,
    failure_detail = NULL,
    failed_at = NULL,
    failing_since = NULL,
    identity_question = nullif(coalesce(g.identity_question, g.question), excluded.question),
    lml_manual = CASE
        WHEN excluded.lml_manual <@ g.lml_manual THEN g.lml_manual
        ELSE ARRAY(SELECT unnest(g.lml_manual) UNION SELECT unnest(excluded.lml_manual))
    END
WHERE g.ask_order < excluded.ask_order
RETURNING g.library_id

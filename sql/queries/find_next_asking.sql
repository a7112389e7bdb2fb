-- Returns which search finds a row of the library first, when and for what reason, by the rules of find_failed
-- (retry), find_due_by_time and find_credited (sweep) and find_due_by_content (audit). No row if none ever does: the
-- row is out of scope, cannot be asked about or is left to the outbox.
SELECT
    s.job,
    s.reason,
    s.due_at,
    s.due_at <= now() AS due,
    t.next_at
FROM {backend}.library AS l
LEFT JOIN listener.ledger AS g ON g.library_id = l.id
LEFT JOIN {backend}.library_identity AS i ON i.library_id = l.id
CROSS JOIN LATERAL (
    SELECT
        g.library_id IS NULL AS never,
        g.question <> listener.question_digest(
            l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
        ) AS changed,
        listener.still_holds(
            g.outcome, g.answered_at, g.lml_manual, i.library_id, i.method, i.notes, i.last_verified_at,
            %(stale_after)s, %(retry_after)s
        )
            AND NOT listener.is_contradicted(
                g.identity_verified_at, g.lml_manual, i.method, i.notes, i.last_verified_at
            ) AS holds,
        EXISTS (
            SELECT
            FROM {backend}.compilation_track_artist AS t
            WHERE t.library_id = l.id
                AND t.id > g.last_credit
        ) AS credited,
        listener.is_kept(i.method, i.notes, 'identity' = ANY (g.lml_manual)) AS kept
) AS k
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN g.failures > 0 THEN 'retry' ELSE 'sweep' END AS job,
        CASE
            WHEN g.failures > 0 THEN 'failed'
            WHEN k.changed THEN 'changed'
            ELSE listener.reason_after(g.outcome)
        END AS reason,
        CASE
            WHEN g.failures = 0 AND g.outcome IS NOT NULL AND k.credited THEN least(g.next_ask_at, now())
            ELSE g.next_ask_at
        END AS due_at
    UNION ALL
    SELECT
        'audit' AS job,
        CASE
            WHEN k.never THEN 'never'
            WHEN k.changed THEN 'changed'
            WHEN g.failures > 0 THEN 'failed'
            ELSE listener.reason_after(g.outcome)
        END AS reason,
        CASE
            WHEN k.never THEN CASE
                WHEN i.last_verified_at <= now() THEN i.last_verified_at + %(stale_after)s::interval ELSE now()
            END
            WHEN k.changed THEN now()
            WHEN g.failures > 0 THEN CASE WHEN g.failed_at > now() THEN now() END
            WHEN NOT k.holds THEN now()
            WHEN g.outcome = 'single_artist' THEN least(
                g.answered_at + %(stale_after)s::interval,
                CASE WHEN NOT k.kept THEN i.last_verified_at + %(stale_after)s::interval END
            )
            WHEN g.outcome = 'visited_compilation' THEN g.answered_at + %(stale_after)s::interval
            ELSE g.answered_at + %(retry_after)s::interval
        END AS due_at
    WHERE NOT EXISTS (SELECT FROM listener.change AS c WHERE c.stream = 'library' AND c.row_id = l.id)
) AS s
LEFT JOIN listener.slot AS t ON t.job = s.job
WHERE l.id = %(library_id)s
    AND l.artist_name IS NOT NULL
    AND (%(include_null_canonical)s OR l.canonical_entity_id IS NOT NULL OR s.job = 'retry')
    AND s.due_at IS NOT NULL
ORDER BY greatest(s.due_at, now()), s.job DESC
LIMIT 1

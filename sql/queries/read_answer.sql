-- Reads the ledger's entry for a row of the library, and whether the row exists and still asks the same question.
SELECT
    g.outcome,
    g.tracks,
    g.answered_at,
    g.question = listener.question_digest(
        l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
    ) AND l.id IS NOT NULL AS same_question,
    g.failures,
    g.failure,
    g.failure_detail,
    g.failed_at,
    g.failures > 0 AND g.parked AS parked,
    g.next_ask_at
FROM listener.ledger AS g
LEFT JOIN {backend}.library AS l ON l.id = g.library_id
WHERE g.library_id = %(library_id)s

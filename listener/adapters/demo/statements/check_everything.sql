-- Checks that nothing was lost: every release with an artist name has the verdict on its present names,
-- every single artist has its identity row, no identity of ours answers another question, and no change waits.
SELECT
    count(*) AS releases,
    count(*) FILTER (WHERE g.outcome = 'single_artist') AS single_artists,
    count(*) FILTER (WHERE g.outcome = 'unresolved') AS unresolved,
    count(*) FILTER (WHERE g.outcome = 'compilation') AS compilations,
    count(*) FILTER (
        WHERE l.artist_name IS NOT NULL
            AND g.question IS DISTINCT FROM listener.question_digest(
                l.artist_name, l.album_title, l.legacy_release_id, coalesce(l.code_volume_letters LIKE 'Z%%', false)
            )
    ) AS unanswered,
    count(*) FILTER (
        WHERE g.outcome = 'single_artist'
            AND NOT EXISTS (SELECT FROM {backend}.library_identity AS i WHERE i.library_id = l.id)
    ) AS unidentified,
    count(*) FILTER (
        WHERE g.identity_question IS NOT NULL
            AND EXISTS (
                SELECT
                FROM {backend}.library_identity AS i
                WHERE i.library_id = l.id
                    AND i.notes = 'consumer:lml-bulk'
            )
    ) AS outdated,
    (SELECT count(*) FROM {backend}.library_identity_history) AS former,
    (SELECT count(*) FROM listener.change) AS waiting
FROM {backend}.library AS l
LEFT JOIN listener.ledger AS g ON g.library_id = l.id;

-- Checks that nothing was lost: every release with an artist name has the verdict on its current names,
-- every single artist has its identity row, every credit of a visited compilation that has one artist in the catalogue
-- is linked to it, no identity of ours answers another question, and no change waits.
SELECT
    count(*) AS releases,
    count(*) FILTER (WHERE g.outcome = 'single_artist') AS single_artists,
    count(*) FILTER (WHERE g.outcome = 'unresolved') AS unresolved,
    count(*) FILTER (WHERE g.outcome = 'compilation') AS compilations,
    count(*) FILTER (WHERE g.outcome = 'visited_compilation') AS visited_compilations,
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
    (
        SELECT count(*)
        FROM {backend}.compilation_track_artist AS t
        INNER JOIN listener.ledger AS v ON v.library_id = t.library_id AND v.outcome = 'visited_compilation'
        WHERE t.track_artist_id IS NULL
            AND (
                SELECT count(*)
                FROM {backend}.artists AS a
                WHERE {backend}.fold_artist_name(a.artist_name) = {backend}.fold_artist_name(t.artist_name)
            ) = 1
    ) AS unlinked,
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

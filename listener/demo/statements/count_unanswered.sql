-- Counts the releases, among some, about whose current names LML has not yet been asked, or not yet answered.
SELECT count(*) AS unanswered
FROM {backend}.library AS l
LEFT JOIN listener.ledger AS g ON g.library_id = l.id
WHERE l.id = ANY (%(ids)s::int[])
    AND l.artist_name IS NOT NULL
    AND g.question IS DISTINCT FROM listener.question_digest(
        l.artist_name, l.album_title, l.legacy_release_id, coalesce(l.code_volume_letters LIKE 'Z%%', false)
    );

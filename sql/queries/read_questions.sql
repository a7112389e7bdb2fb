-- Reads what LML would be asked about some rows now, and whether the ledger has a fresh answer to just that.
SELECT
    l.id AS library_id,
    l.artist_name,
    l.album_title,
    l.legacy_release_id,
    q.digest,
    coalesce(
        g.question = q.digest
        AND g.next_ask_at > now()
        AND (
            g.outcome <> 'single_artist'
            OR EXISTS (SELECT FROM {backend}.library_identity AS i WHERE i.library_id = l.id)
        ),
        false
    ) AS answered
FROM {backend}.library AS l
CROSS JOIN LATERAL (
    SELECT listener.question_digest(
        l.artist_name, l.album_title, l.legacy_release_id, coalesce(l.code_volume_letters LIKE 'Z%%', false)
    )
) AS q (digest)
LEFT JOIN listener.ledger AS g ON g.library_id = l.id
WHERE l.id = ANY (%(row_ids)b::int[])

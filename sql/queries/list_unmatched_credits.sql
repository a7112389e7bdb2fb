-- Lists compilations with credits that LML knows but that are linked to no artist, those with the most first.
SELECT
    l.id AS row_id,
    l.artist_name,
    l.album_title,
    l.code_volume_letters AS letters,
    g.answered_at AS since,
    format('%%s of %%s credits are linked to no artist', c.unmatched, c.credits) AS why,
    l.id AS library_id
FROM listener.ledger AS g
INNER JOIN {backend}.library AS l ON l.id = g.library_id
CROSS JOIN LATERAL (
    SELECT
        (g.tracks ->> 'credits')::int AS credits,
        (g.tracks ->> 'no_cta_match')::int
            + (g.tracks ->> 'no_catalog_artist')::int
            + (g.tracks ->> 'no_resolved_artist')::int AS unmatched
) AS c
WHERE g.outcome = 'visited_compilation'
    AND c.unmatched > 0
ORDER BY c.unmatched DESC, l.id
LIMIT %(limit)s
OFFSET %(skip)s

-- Lists releases for which LML finds no single artist, the longest unverified first.
SELECT
    l.id AS row_id,
    l.artist_name,
    l.album_title,
    l.code_volume_letters AS letters,
    g.answered_at AS since,
    'LML finds no single artist' AS why,
    l.id AS library_id
FROM listener.ledger AS g
INNER JOIN {backend}.library AS l ON l.id = g.library_id
WHERE g.outcome = 'unresolved'
    AND g.failures = 0
ORDER BY g.answered_at, l.id
LIMIT %(limit)s
OFFSET %(skip)s

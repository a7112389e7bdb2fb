-- Lists releases that are parked, the longest parked first.
SELECT
    l.id AS row_id,
    l.artist_name,
    l.album_title,
    l.code_volume_letters AS letters,
    g.failed_at AS since,
    concat_ws(': ', g.failure, g.failure_detail) AS why,
    l.id AS library_id
FROM listener.ledger AS g
INNER JOIN {backend}.library AS l ON l.id = g.library_id
WHERE g.failures > 0
    AND g.parked
ORDER BY g.failed_at, l.id
LIMIT %(limit)s
OFFSET %(skip)s

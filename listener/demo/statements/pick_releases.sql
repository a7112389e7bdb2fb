-- Picks releases here and there, preferably some that were not asked about lately.
SELECT l.id, l.artist_name, l.album_title
FROM {backend}.library AS l
INNER JOIN listener.ledger AS g ON g.library_id = l.id
WHERE l.album_title NOT LIKE '%%(Remastered)'
ORDER BY g.answered_at, md5(l.id::text)
LIMIT %(count)s;

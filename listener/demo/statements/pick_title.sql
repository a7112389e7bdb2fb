-- Picks a release with an "and" in its title, preferably one that was not asked about lately.
SELECT l.id, l.artist_name, l.album_title
FROM {backend}.library AS l
INNER JOIN listener.ledger AS g ON g.library_id = l.id
WHERE l.album_title LIKE '%% and %%'
    AND length(l.album_title) < 60
ORDER BY g.answered_at, l.id
LIMIT 1;

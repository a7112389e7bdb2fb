-- Picks the artist with the most releases, if possible one whose name begins with "The".
SELECT l.artist_id, a.artist_name
FROM {backend}.library AS l
INNER JOIN {backend}.artists AS a ON a.id = l.artist_id
WHERE a.artist_name NOT ILIKE 'various%%'
GROUP BY l.artist_id, a.artist_name
ORDER BY a.artist_name LIKE 'The _%%' DESC, count(*) DESC, l.artist_id
LIMIT 1;

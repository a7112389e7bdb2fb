-- Picks the artist with the most identities, if possible one whose name begins with "The".
SELECT l.artist_id, a.artist_name
FROM {backend}.library AS l
INNER JOIN {backend}.artists AS a ON a.id = l.artist_id
LEFT JOIN {backend}.library_identity AS i ON i.library_id = l.id
WHERE a.artist_name NOT ILIKE 'various%%'
GROUP BY l.artist_id, a.artist_name
ORDER BY a.artist_name LIKE 'The _%%' DESC, count(i.library_id) DESC, count(*) DESC, l.artist_id
LIMIT 1;

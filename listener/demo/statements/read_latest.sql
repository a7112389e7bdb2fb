-- Reads the verdicts on questions asked after a given one, oldest first.
SELECT
    g.ask_order,
    l.id,
    l.artist_name,
    l.album_title,
    g.outcome,
    ARRAY(
        SELECT s.source
        FROM {backend}.library_identity_source AS s
        WHERE s.library_id = l.id
        ORDER BY s.source
    ) AS sources,
    EXISTS (SELECT FROM {backend}.library_identity AS i WHERE i.library_id = l.id) AS identified,
    count(*) OVER () AS verdicts
FROM listener.ledger AS g
INNER JOIN {backend}.library AS l ON l.id = g.library_id
WHERE g.ask_order > %(after)s
ORDER BY g.ask_order DESC, l.id
LIMIT 5;

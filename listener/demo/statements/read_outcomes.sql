-- Reads what some releases became, the catalogues behind each, and whether there is an identity row.
SELECT
    g.outcome,
    ARRAY(
        SELECT s.source
        FROM {backend}.library_identity_source AS s
        WHERE s.library_id = g.library_id
        ORDER BY s.source
    ) AS sources,
    EXISTS (SELECT FROM {backend}.library_identity AS i WHERE i.library_id = g.library_id) AS identified
FROM listener.ledger AS g
WHERE g.library_id = ANY (%(ids)s::int[])
ORDER BY g.library_id;

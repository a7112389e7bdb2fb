-- Tells whether nothing was ever asked.
SELECT NOT EXISTS (SELECT FROM listener.ledger) AS empty

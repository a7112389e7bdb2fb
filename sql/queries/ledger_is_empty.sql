-- Returns whether LML was never asked.
SELECT NOT EXISTS (SELECT FROM listener.ledger) AS empty

-- Lists the parked rows of the library, the longest parked first: a limited number, or all.
SELECT
    g.library_id,
    g.failure AS reason,
    g.failure_detail AS detail,
    g.failures AS attempts,
    g.failed_at AS last_failed_at
FROM listener.ledger AS g
WHERE g.failures > 0
    AND g.parked
    AND EXISTS (SELECT FROM {backend}.library AS l WHERE l.id = g.library_id)
ORDER BY g.failed_at, g.library_id
LIMIT %(at_most)s

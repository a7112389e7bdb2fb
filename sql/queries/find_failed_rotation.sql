-- Finds the failed rotation rows that are due for a retry, the longest due first.
SELECT f.row_id
FROM listener.rotation_failure AS f
WHERE f.next_ask_at <= now()
ORDER BY f.next_ask_at, f.row_id
LIMIT %(limit)s

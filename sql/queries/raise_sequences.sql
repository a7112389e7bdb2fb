-- Brings sequences up to the rows that were drawn from them, and names those that were behind: a copy of the rows
-- alone, as logical replication makes it, leaves them as new ones.
SELECT
    'listener.' || q.sequencename AS name,
    setval(('listener.' || q.sequencename)::regclass, drawn.highest) AS value
FROM (
    SELECT 'ask_order' AS name, (SELECT max(g.ask_order) FROM listener.ledger AS g) AS highest
    UNION ALL
    SELECT 'change_seq_seq', (SELECT max(c.seq) FROM listener.change AS c)
    UNION ALL
    SELECT 'run_run_id_seq', (SELECT max(r.run_id) FROM listener.run AS r)
    UNION ALL
    SELECT 'refresh_refresh_id_seq', (SELECT max(r.refresh_id) FROM listener.refresh AS r)
) AS drawn
INNER JOIN pg_sequences AS q ON q.schemaname = 'listener' AND q.sequencename = drawn.name
WHERE drawn.highest > coalesce(q.last_value, 0)

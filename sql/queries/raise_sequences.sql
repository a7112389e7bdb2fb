-- Brings sequences up to the rows that were drawn from them, and names those that were behind: a copy of the rows
-- alone, as logical replication makes it, leaves them at 1.
SELECT
    s.name,
    setval(s.name::regclass, s.highest) AS value
FROM (
    SELECT
        'listener.ask_order' AS name,
        (SELECT max(g.ask_order) FROM listener.ledger AS g) AS highest,
        (SELECT q.last_value FROM listener.ask_order AS q) AS present
    UNION ALL
    SELECT
        'listener.change_seq_seq' AS name,
        (SELECT max(c.seq) FROM listener.change AS c) AS highest,
        (SELECT q.last_value FROM listener.change_seq_seq AS q) AS present
    UNION ALL
    SELECT
        'listener.run_run_id_seq' AS name,
        (SELECT max(r.run_id) FROM listener.run AS r) AS highest,
        (SELECT q.last_value FROM listener.run_run_id_seq AS q) AS present
    UNION ALL
    SELECT
        'listener.refresh_refresh_id_seq' AS name,
        (SELECT max(r.refresh_id) FROM listener.refresh AS r) AS highest,
        (SELECT q.last_value FROM listener.refresh_refresh_id_seq AS q) AS present
) AS s
WHERE s.highest > s.present

-- Lists the sequences that are behind the rows drawn from them, as a logical copy of the rows leaves them, and
-- advances them if requested: our own, and that of the history if it is given. Leaves out sequences that the role may
-- not read, because their position is unknown.
SELECT
    drawn.name,
    CASE WHEN %(raising)s THEN setval(c.oid::regclass, drawn.highest) END AS position
FROM (
    SELECT 'listener.ask_order' AS name, (SELECT max(g.ask_order) FROM listener.ledger AS g) AS highest
    UNION ALL
    SELECT 'listener.change_seq_seq', (SELECT max(c.seq) FROM listener.change AS c)
    UNION ALL
    SELECT 'listener.run_run_id_seq', (SELECT max(r.run_id) FROM listener.run AS r)
    UNION ALL
    SELECT 'listener.refresh_refresh_id_seq', (SELECT max(r.refresh_id) FROM listener.refresh AS r)
    UNION ALL
    SELECT 'listener.sample_sample_id_seq', (SELECT max(s.sample_id) FROM listener.sample AS s)
    UNION ALL
    SELECT %(history_sequence)s::text, %(history_highest)s::bigint
) AS drawn
INNER JOIN pg_class AS c ON c.oid = drawn.name::regclass
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_sequences AS q ON q.schemaname = n.nspname AND q.sequencename = c.relname
-- Asked about anything else, as some plans do before they join, has_sequence_privilege raises.
WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE, SELECT') END
    AND drawn.highest > coalesce(q.last_value, 0)

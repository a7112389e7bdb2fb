-- Does what raise_sequences.sql does with the sequence that numbers former identities.
SELECT
    drawn.name,
    CASE WHEN %(raising)s THEN setval(c.oid::regclass, drawn.highest) END AS position
FROM (
    SELECT
        pg_get_serial_sequence(
            (SELECT h.tableoid::regclass::text FROM {backend}.library_identity_history AS h LIMIT 1), 'history_id'
        ) AS name,
        (SELECT max(h.history_id) FROM {backend}.library_identity_history AS h) AS highest
) AS drawn
INNER JOIN pg_class AS c ON c.oid = drawn.name::regclass
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_sequences AS q ON q.schemaname = n.nspname AND q.sequencename = c.relname
WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE, SELECT') END
    AND drawn.highest > coalesce(q.last_value, 0)

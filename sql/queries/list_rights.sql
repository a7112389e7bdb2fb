-- Lists every right that a daemon needs, as runbooks/install.md grants them, and whether the role has it: null if there
-- is no such thing. Looked up by oid: a name in a schema that the role may not use would be an error.
WITH wanted (schema_name, name, rights) AS (
    VALUES
        ('listener', 'installed', '{{SELECT}}'::text[]),
        ('listener', 'change', '{{SELECT,INSERT,DELETE}}'),
        ('listener', 'ledger', '{{SELECT,INSERT,UPDATE,DELETE}}'),
        ('listener', 'run', '{{SELECT,INSERT,UPDATE,DELETE}}'),
        ('listener', 'slot', '{{SELECT,INSERT,UPDATE}}'),
        ('listener', 'lane', '{{SELECT,UPDATE}}'),
        ('listener', 'refresh', '{{SELECT,INSERT,UPDATE,DELETE}}'),
        ('listener', 'warmth', '{{SELECT,INSERT,UPDATE,DELETE}}'),
        ('listener', 'ask_order', '{{USAGE}}'),
        (%(backend)s, 'library', '{{SELECT,UPDATE (id)}}'),
        (%(backend)s, 'rotation', '{{SELECT,UPDATE (lml_identity_id)}}'),
        (%(backend)s, 'compilation_track_artist', '{{SELECT}}'),
        (%(backend)s, 'library_identity', '{{SELECT,INSERT,UPDATE,DELETE}}'),
        (%(backend)s, 'library_identity_source', '{{SELECT,INSERT,UPDATE,DELETE}}')
)
SELECT
    s.schema_name,
    NULL AS name,
    'USAGE' AS wanted_right,
    has_schema_privilege(n.oid, 'USAGE') AS granted
FROM (SELECT DISTINCT w.schema_name FROM wanted AS w) AS s
LEFT JOIN pg_namespace AS n ON n.nspname = s.schema_name
UNION ALL
SELECT
    w.schema_name,
    w.name,
    r.wanted_right,
    CASE
        WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, r.wanted_right)
        -- A row lock wants the right to update some column, whichever.
        WHEN r.wanted_right = 'UPDATE (id)' THEN has_any_column_privilege(c.oid, 'UPDATE')
        WHEN r.wanted_right LIKE 'UPDATE (%%' THEN (
            SELECT has_column_privilege(c.oid, a.attnum, 'UPDATE')
            FROM pg_attribute AS a
            WHERE a.attrelid = c.oid
                AND r.wanted_right = format('UPDATE (%%s)', a.attname)
        )
        ELSE has_table_privilege(c.oid, r.wanted_right)
    END AS granted
FROM wanted AS w
CROSS JOIN unnest(w.rights) AS r (wanted_right)
LEFT JOIN pg_namespace AS n ON n.nspname = w.schema_name
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
ORDER BY schema_name, name NULLS FIRST, wanted_right

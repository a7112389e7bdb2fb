-- Lists every right that a daemon needs, and whether a role has it: null if the object does not exist. Optional tables
-- that do not exist are left out. Objects are looked up by oid: a name in a schema that the role may not use would be
-- an error.
WITH wanted (kind, schema_name, name, rights, optional) AS (
    VALUES
        ('DATABASE', NULL, current_database()::text, '{{CONNECT}}'::text[], false),
        ('SCHEMA', NULL, 'listener', '{{USAGE}}', false),
        ('SCHEMA', NULL, %(backend)s, '{{USAGE}}', false),
        ('TABLE', 'listener', 'installed', '{{SELECT}}', false),
        ('TABLE', 'listener', 'change', '{{SELECT,INSERT,DELETE}}', false),
        ('TABLE', 'listener', 'ledger', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('TABLE', 'listener', 'run', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('TABLE', 'listener', 'slot', '{{SELECT,INSERT,UPDATE}}', false),
        ('TABLE', 'listener', 'sample', '{{SELECT,INSERT,DELETE}}', false),
        ('TABLE', 'listener', 'lane', '{{SELECT,UPDATE}}', false),
        ('TABLE', 'listener', 'refresh', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('TABLE', 'listener', 'warmth', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('TABLE', 'listener', 'rotation_failure', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('SEQUENCE', 'listener', 'ask_order', '{{USAGE,UPDATE}}', false),
        ('ROUTINE', 'listener', 'question_digest', '{{EXECUTE}}', false),
        ('ROUTINE', 'listener', 'still_holds', '{{EXECUTE}}', false),
        ('ROUTINE', 'listener', 'is_kept', '{{EXECUTE}}', false),
        ('ROUTINE', 'listener', 'is_contradicted', '{{EXECUTE}}', false),
        ('ROUTINE', 'listener', 'is_compilation', '{{EXECUTE}}', false),
        ('ROUTINE', 'listener', 'reason_after', '{{EXECUTE}}', false),
        -- A row lock requires the right to update some column, no matter which; the daemon updates none.
        ('TABLE', %(backend)s, 'library', '{{SELECT,UPDATE (id)}}', false),
        ('TABLE', %(backend)s, 'rotation', '{{SELECT,UPDATE (lml_identity_id)}}', false),
        ('TABLE', %(backend)s, 'artists', '{{SELECT}}', false),
        ('ROUTINE', %(backend)s, 'fold_artist_name', '{{EXECUTE}}', false),
        ('TABLE', %(backend)s, 'compilation_track_artist',
            '{{SELECT,"UPDATE (track_artist_id, track_artist_link_confidence, track_artist_link_method, track_position)"}}',
            false),
        ('TABLE', %(backend)s, 'library_identity', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('TABLE', %(backend)s, 'library_identity_source', '{{SELECT,INSERT,UPDATE,DELETE}}', false),
        ('TABLE', %(backend)s, 'library_identity_history', '{{SELECT,INSERT}}', true)
),
things AS (
    SELECT
        w.kind,
        w.schema_name,
        w.name,
        w.rights,
        w.optional,
        CASE w.kind
            WHEN 'DATABASE' THEN (SELECT d.oid FROM pg_database AS d WHERE d.datname = w.name)
            WHEN 'SCHEMA' THEN (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = w.name)
            WHEN 'ROUTINE' THEN (
                SELECT p.oid
                FROM pg_proc AS p
                INNER JOIN pg_namespace AS n ON n.oid = p.pronamespace
                WHERE n.nspname = w.schema_name
                    AND p.proname = w.name
            )
            ELSE (
                SELECT c.oid
                FROM pg_class AS c
                INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = w.schema_name
                    AND c.relname = w.name
            )
        END AS thing
    FROM wanted AS w
    UNION ALL
    -- An insert draws from the sequence of a table, which a logical copy of its rows leaves behind.
    SELECT
        'SEQUENCE',
        w.schema_name,
        s.relname,
        '{{USAGE,UPDATE}}',
        w.optional,
        s.oid
    FROM wanted AS w
    INNER JOIN pg_namespace AS n ON n.nspname = w.schema_name
    INNER JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
    INNER JOIN pg_depend AS d ON d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    INNER JOIN pg_class AS s ON s.oid = d.objid AND d.classid = 'pg_class'::regclass AND s.relkind = 'S'
    WHERE w.kind = 'TABLE'
        AND 'INSERT' = ANY (w.rights)
)
SELECT
    t.kind,
    t.schema_name,
    t.name,
    r.wanted_right,
    CASE WHEN t.thing IS NOT NULL THEN coalesce(
        CASE
            WHEN t.kind = 'DATABASE' THEN has_database_privilege(a.oid, t.thing, r.wanted_right)
            WHEN t.kind = 'SCHEMA' THEN has_schema_privilege(a.oid, t.thing, r.wanted_right)
            WHEN t.kind = 'ROUTINE' THEN has_function_privilege(a.oid, t.thing, r.wanted_right)
            WHEN t.kind = 'SEQUENCE' THEN has_sequence_privilege(a.oid, t.thing, r.wanted_right)
            WHEN r.wanted_right = 'UPDATE (id)' THEN has_any_column_privilege(a.oid, t.thing, 'UPDATE')
            WHEN r.wanted_right LIKE 'UPDATE (%%' THEN (
                SELECT bool_and(coalesce(has_column_privilege(a.oid, t.thing, c.attnum, 'UPDATE'), false))
                FROM string_to_table(substring(r.wanted_right FROM '[(](.*)[)]'), ', ') AS u (name)
                LEFT JOIN pg_attribute AS c ON c.attrelid = t.thing AND c.attname = u.name AND NOT c.attisdropped
            )
            ELSE has_table_privilege(a.oid, t.thing, r.wanted_right)
        END,
        false
    ) END AS granted
FROM things AS t
CROSS JOIN unnest(t.rights) AS r (wanted_right)
LEFT JOIN pg_roles AS a ON a.rolname = coalesce(%(role)s, current_user)
WHERE t.thing IS NOT NULL
    OR NOT t.optional
ORDER BY t.schema_name NULLS FIRST, t.kind, t.name, r.wanted_right

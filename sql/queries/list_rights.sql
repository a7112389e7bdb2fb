-- Lists the given rights, and whether a role has each: null if the object does not exist. A missing optional table is
-- left out. Objects are looked up by oid: a name in a schema that the role may not use would be an error.
WITH wanted AS (
    SELECT
        u.kind,
        u.schema_name,
        coalesce(u.name, current_database()) AS name,
        u.wanted_right
    FROM unnest(%(kinds)s::text[], %(schemas)s::text[], %(names)s::text[], %(rights)s::text[])
        AS u (kind, schema_name, name, wanted_right)
),
things AS (
    SELECT
        w.kind,
        w.schema_name,
        w.name,
        w.wanted_right,
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
        r.wanted_right,
        s.oid
    FROM wanted AS w
    INNER JOIN pg_namespace AS n ON n.nspname = w.schema_name
    INNER JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
    INNER JOIN pg_depend AS d ON d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    INNER JOIN pg_class AS s ON s.oid = d.objid AND d.classid = 'pg_class'::regclass AND s.relkind = 'S'
    CROSS JOIN (VALUES ('USAGE'), ('UPDATE')) AS r (wanted_right)
    WHERE w.wanted_right = 'INSERT'
)
SELECT
    t.kind,
    t.schema_name,
    t.name,
    t.wanted_right,
    CASE WHEN t.thing IS NOT NULL THEN coalesce(
        CASE
            WHEN t.kind = 'DATABASE' THEN has_database_privilege(a.oid, t.thing, t.wanted_right)
            WHEN t.kind = 'SCHEMA' THEN has_schema_privilege(a.oid, t.thing, t.wanted_right)
            WHEN t.kind = 'ROUTINE' THEN has_function_privilege(a.oid, t.thing, t.wanted_right)
            WHEN t.kind = 'SEQUENCE' THEN has_sequence_privilege(a.oid, t.thing, t.wanted_right)
            WHEN t.wanted_right = 'UPDATE (id)' THEN has_any_column_privilege(a.oid, t.thing, 'UPDATE')
            WHEN t.wanted_right LIKE 'UPDATE (%%' THEN (
                SELECT bool_and(coalesce(has_column_privilege(a.oid, t.thing, c.attnum, 'UPDATE'), false))
                FROM string_to_table(substring(t.wanted_right FROM '[(](.*)[)]'), ', ') AS u (name)
                LEFT JOIN pg_attribute AS c ON c.attrelid = t.thing AND c.attname = u.name AND NOT c.attisdropped
            )
            ELSE has_table_privilege(a.oid, t.thing, t.wanted_right)
        END,
        false
    ) END AS granted
FROM things AS t
LEFT JOIN pg_roles AS a ON a.rolname = coalesce(%(role)s, current_user)
WHERE t.thing IS NOT NULL
    OR t.name <> %(optional)s
ORDER BY t.schema_name NULLS FIRST, t.kind, t.name, t.wanted_right

-- Lists what could be granted to overcome a refusal, the smallest right first: on everything whose name appears in the
-- server's message, in whatever language that is.
WITH kinds (kind, step, rights) AS (
    VALUES
        ('SCHEMA', 1, 'USAGE'),
        ('ROUTINE', 1, 'EXECUTE'),
        ('SEQUENCE', 1, 'USAGE'),
        ('TABLE', 1, 'SELECT'),
        ('TABLE', 2, 'INSERT'),
        ('TABLE', 3, 'UPDATE'),
        ('TABLE', 4, 'DELETE'),
        ('TABLE', 5, 'SELECT, INSERT'),
        ('TABLE', 6, 'SELECT, UPDATE'),
        ('TABLE', 7, 'SELECT, DELETE'),
        ('TABLE', 8, 'SELECT, INSERT, UPDATE'),
        ('TABLE', 9, 'SELECT, INSERT, UPDATE, DELETE')
),
things AS (
    SELECT
        'SCHEMA' AS kind,
        n.nspname AS schema_name,
        n.nspname AS name,
        format('%%I', n.nspname) AS thing
    FROM pg_namespace AS n
    UNION ALL
    SELECT
        'ROUTINE',
        n.nspname,
        p.proname,
        p.oid::regprocedure::text
    FROM pg_proc AS p
    INNER JOIN pg_namespace AS n ON n.oid = p.pronamespace
    UNION ALL
    SELECT
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        n.nspname,
        c.relname,
        format('%%I.%%I', n.nspname, c.relname)
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f', 'S')
)
SELECT k.rights || ' ON ' || k.kind || ' ' || t.thing AS what
FROM things AS t
INNER JOIN kinds AS k ON k.kind = t.kind
WHERE position(t.name IN %(refusal)s) > 0
    AND t.schema_name !~ '^(pg_|information_schema$)'
ORDER BY length(t.name) DESC, t.thing, k.step

-- Lists our triggers on the backend's tables, whether they fire for ordinary writers, and whether they can record
-- changes. What they cannot record they leave to a search; a writer only gets a warning.
SELECT
    c.relname,
    t.tgname,
    t.tgenabled IN ('O', 'A')
        AND coalesce(has_table_privilege(p.proowner, to_regclass('listener.change'), 'INSERT'), false)
        AND EXISTS (
            SELECT
            FROM pg_attribute AS a
            WHERE a.attrelid = to_regclass('listener.change')
                AND a.attname = 'seq'
                AND a.attidentity <> ''
        ) AS enabled
FROM pg_trigger AS t
INNER JOIN pg_class AS c ON c.oid = t.tgrelid
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE n.nspname = %(backend)s
    AND t.tgname LIKE 'listener\_%%'
    AND NOT t.tgisinternal
ORDER BY c.relname, t.tgname

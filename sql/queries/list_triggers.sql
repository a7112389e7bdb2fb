-- Lists our triggers on the backend's tables and whether they fire for ordinary writers.
SELECT
    c.relname,
    t.tgname,
    t.tgenabled IN ('O', 'A') AS enabled
FROM pg_trigger AS t
INNER JOIN pg_class AS c ON c.oid = t.tgrelid
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(backend)s
    AND t.tgname LIKE 'listener\_%%'
    AND NOT t.tgisinternal
ORDER BY c.relname, t.tgname

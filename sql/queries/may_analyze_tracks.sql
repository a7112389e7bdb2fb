-- Returns whether the role may analyze the backend's track artists: without the right, PostgreSQL would only warn.
SELECT
    pg_has_role(c.relowner, 'USAGE')
    OR CASE
        WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN')
        ELSE false
    END AS may
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(backend)s
    AND c.relname = 'compilation_track_artist'

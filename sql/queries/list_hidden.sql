-- Lists the tables that a daemon uses and in which row level security may hide rows from a role.
SELECT n.nspname || '.' || c.relname AS hidden
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_roles AS a ON a.rolname = coalesce(%(role)s, current_user)
WHERE c.relrowsecurity
    AND NOT a.rolsuper
    AND NOT a.rolbypassrls
    AND (c.relforcerowsecurity OR NOT pg_has_role(a.oid, c.relowner, 'USAGE'))
    AND (
        n.nspname = 'listener'
        OR n.nspname = %(backend)s
            AND c.relname IN (
                'library', 'rotation', 'artists', 'compilation_track_artist', 'library_identity',
                'library_identity_source', 'library_identity_history'
            )
    )
ORDER BY 1

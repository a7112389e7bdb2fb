-- Returns whether a role exists, whether we are connected as it, and whether it owns schema listener or anything in
-- it.
SELECT
    a.oid IS NOT NULL AS present,
    w.name IN (current_user, session_user) AS ourselves,
    EXISTS (
        SELECT
        FROM pg_namespace AS n
        WHERE n.nspname = 'listener'
            AND (
                n.nspowner = a.oid
                OR EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relowner = a.oid)
                OR EXISTS (SELECT FROM pg_proc AS p WHERE p.pronamespace = n.oid AND p.proowner = a.oid)
            )
    ) AS owner
FROM (VALUES (%(role)s::text)) AS w (name)
LEFT JOIN pg_roles AS a ON a.rolname = w.name

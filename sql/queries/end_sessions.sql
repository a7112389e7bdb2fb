-- Ends the sessions of a daemon that lost its lane, so that none of their locks survives.
SELECT pg_terminate_backend(a.pid)
FROM pg_stat_activity AS a
WHERE a.application_name = %(holder)s
    AND a.usename = current_user
    AND a.datname = current_database()
    AND a.pid = coalesce(%(only_pid)s, a.pid)
    AND a.pid <> pg_backend_pid()

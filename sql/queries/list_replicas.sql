-- Lists the processes that work on this database, by the names of their sessions.
SELECT DISTINCT a.application_name
FROM pg_stat_activity AS a
WHERE a.datname = current_database()
    AND a.application_name LIKE 'listener %%'
    AND a.application_name <> ALL (%(others)s::text[])
ORDER BY a.application_name

-- Lists the daemons on this database, by the names of their sessions; names of command sessions have a hyphen instead
-- of a blank.
SELECT DISTINCT a.application_name
FROM pg_stat_activity AS a
WHERE a.datname = current_database()
    AND a.application_name LIKE 'listener %'
ORDER BY a.application_name

-- Tells what kind of server this is, who we are there, and what time it is by its clock.
SELECT
    current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS version_name,
    pg_is_in_recovery() AS standby,
    current_database()::text AS database,
    current_user::text AS role,
    clock_timestamp() AS at

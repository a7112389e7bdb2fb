-- Returns the server's version and mode, our role, and the time by its clock.
SELECT
    current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS version_name,
    pg_is_in_recovery() AS standby,
    -- What a daemon's transactions begin with: the one that looks is read-only in any case.
    current_setting('default_transaction_read_only')::boolean AS read_only,
    current_database()::text AS database,
    current_user::text AS role,
    current_setting('deadlock_timeout')::interval AS deadlock_timeout,
    clock_timestamp() AS at

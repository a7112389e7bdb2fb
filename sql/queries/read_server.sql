-- Returns the server's version and mode, our role, and the server's time.
SELECT
    current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS version_name,
    pg_is_in_recovery() AS standby,
    -- The default for a daemon's transactions: the transaction of this statement is always read-only.
    current_setting('default_transaction_read_only')::boolean AS read_only,
    current_database()::text AS database,
    current_user::text AS role,
    current_setting('deadlock_timeout')::interval AS deadlock_timeout,
    clock_timestamp() AS at

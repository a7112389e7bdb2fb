-- Returns the sequence that numbers former identities, and the highest number drawn from it; null if there are none.
SELECT
    pg_get_serial_sequence(
        (SELECT h.tableoid::regclass::text FROM {backend}.library_identity_history AS h LIMIT 1), 'history_id'
    ) AS name,
    (SELECT max(h.history_id) FROM {backend}.library_identity_history AS h) AS highest

-- Reads how many entries the outbox ever had: exact while nobody's transaction is rolled back.
SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('listener.change', 'seq')::regclass), 0) AS entries;

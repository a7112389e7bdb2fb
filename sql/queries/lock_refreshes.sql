-- Keeps other processes from taking a refresh call until the transaction ends. This is a statement of its own, so that
-- the next one sees what they took.
SELECT pg_advisory_xact_lock(%(lock_class)s::int, %(lock_number)s::int)

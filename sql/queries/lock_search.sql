-- Takes a lock of a run for the length of its session, alone or shared, if nobody is in the way; tells whether it did.
SELECT
    CASE
        WHEN %(shared)s THEN pg_try_advisory_lock_shared(%(lock_class)s::int, %(lock_number)s::int)
        ELSE pg_try_advisory_lock(%(lock_class)s::int, %(lock_number)s::int)
    END AS locked

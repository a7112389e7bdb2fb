-- Takes a run's lock for its session, exclusive or shared, if it is free; returns whether it did.
SELECT
    CASE
        WHEN %(shared)s THEN pg_try_advisory_lock_shared(%(lock_class)s::int, %(lock_number)s::int)
        ELSE pg_try_advisory_lock(%(lock_class)s::int, %(lock_number)s::int)
    END AS locked

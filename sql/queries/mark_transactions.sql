-- Tries the lock that spares writers their wake-up, as a writer does: if another session holds it, writers are not
-- waking us yet. Then draws an id above that of every transaction that has one. A snapshot's xmax would not do: it
-- follows the latest transaction that ended, and one that is still open may have a higher id.
WITH tried AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock_shared(%(lock_class)s::int, %(lock_number)s::int) AS free
)
SELECT
    t.free,
    pg_current_xact_id()::text::bigint AS mark
FROM tried AS t

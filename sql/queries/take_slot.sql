-- Takes the current slot of a job, unless it was taken and finished. Slots are counted from the given time after the
-- epoch. A slot in the future was taken before a clock was set back, and is ignored. One slot makes up for all that
-- were missed.
WITH present AS (
    SELECT date_bin(%(every)s, now(), timestamptz 'epoch' + %(begins)s) AS slot
)
INSERT INTO listener.slot AS s (job, slot, next_at, holder, done)
SELECT
    %(job)s,
    p.slot,
    p.slot + %(every)s,
    %(holder)s,
    false
FROM present AS p
ON CONFLICT (job) DO UPDATE
SET slot = excluded.slot,
    next_at = excluded.next_at,
    holder = excluded.holder,
    done = false
WHERE s.slot < excluded.slot
    OR s.slot > now()
    OR NOT s.done
    OR %(again)s
RETURNING s.slot

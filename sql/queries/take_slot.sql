-- Takes the present slot of a job, which begins so long after a multiple of its interval since the epoch, unless it was
-- taken and finished. A slot that lies in the future was taken before a clock was set back, and counts for nothing.
-- What was missed is caught up by one slot.
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

-- Shows that the holder lives, which session is its own, how LML's breaker stands and what keeps it from its work, and sends it an echo; no row if
-- the lane is lost.
WITH beat AS (
    UPDATE listener.lane AS l
    SET holder_pid = pg_backend_pid(),
        holder_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()),
        beat = l.beat + 1,
        breaker = %(breaker)s,
        fault = %(fault)s
    WHERE l.stream = %(stream)s
        AND l.holder = %(holder)s
    RETURNING l.beat
)
SELECT
    b.beat,
    pg_notify(%(echo)s, b.beat::text)
FROM beat AS b

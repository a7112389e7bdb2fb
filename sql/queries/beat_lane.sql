-- Records that the holder is alive, which session it has and how it is doing, and sends it an echo; no row if the lane
-- is lost.
WITH beat AS (
    UPDATE listener.lane AS l
    SET holder_pid = pg_backend_pid(),
        holder_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()),
        beat = l.beat + 1,
        breaker = %(breaker)s,
        fault = %(fault)s,
        turned_at = clock_timestamp() - %(stalled)s::interval,
        woken = %(woken)s,
        lml_trouble = %(lml_trouble)s,
        lml_trouble_since = CASE WHEN %(lml_trouble)s::text IS NOT NULL THEN coalesce(l.lml_trouble_since, now()) END,
        lml_next_try = CASE WHEN %(lml_trouble)s::text IS NOT NULL THEN clock_timestamp() + %(lml_pause)s::interval END
    WHERE l.stream = %(stream)s
        AND l.holder = %(holder)s
    RETURNING l.beat
)
SELECT
    b.beat,
    pg_notify(%(echo)s, b.beat::text)
FROM beat AS b

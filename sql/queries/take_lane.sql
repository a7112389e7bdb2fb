-- Takes a stream, unless its lane has changed since it was read.
UPDATE listener.lane AS l
SET holder = %(holder)s,
    holder_pid = pg_backend_pid(),
    holder_started = (SELECT a.backend_start FROM pg_stat_activity AS a WHERE a.pid = pg_backend_pid()),
    held_since = now(),
    turned_at = now(),
    beat = l.beat + 1
WHERE l.stream = %(stream)s
    AND l.beat = %(beat)s
    AND l.holder IS NOT DISTINCT FROM %(former)s
RETURNING l.beat

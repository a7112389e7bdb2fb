-- Releases a stream to another daemon, and records why we gave it up, if there was a reason.
UPDATE listener.lane AS l
SET holder = NULL,
    holder_pid = NULL,
    holder_started = NULL,
    held_since = NULL,
    turned_at = NULL,
    breaker = NULL,
    woken = NULL,
    lml_trouble = NULL,
    lml_trouble_since = NULL,
    lml_next_try = NULL,
    fault = %(fault)s
WHERE l.stream = %(stream)s
    AND l.holder = %(holder)s

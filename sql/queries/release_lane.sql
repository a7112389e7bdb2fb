-- Hands a stream over to whoever stands by.
UPDATE listener.lane AS l
SET holder = NULL,
    holder_pid = NULL,
    holder_started = NULL,
    breaker = NULL
WHERE l.stream = %(stream)s
    AND l.holder = %(holder)s

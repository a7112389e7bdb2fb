-- Stores a sample of a stream.
INSERT INTO listener.sample
    (stream, seconds, backlog, oldest, claimed, settled, typical, worst, silent, woken, coverage)
VALUES
    (
        %(stream)s, %(seconds)s, %(backlog)s, %(oldest)s, %(claimed)s, %(settled)s, %(typical)s, %(worst)s,
        %(silent)s, %(woken)s, %(coverage)s
    )

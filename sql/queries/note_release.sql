-- Records which LML release is running; if it differs from the last one, everything that failed becomes due now. So
-- does what a daemon of an older version parked for good, with a time of infinity. Returns one row with the number of
-- rows that became due.
WITH noted AS (
    UPDATE listener.lane AS l
    SET lml_release = %(release)s
    FROM listener.lane AS former
    WHERE l.stream = 'library'
        AND former.stream = l.stream
        AND l.lml_release IS DISTINCT FROM %(release)s
    RETURNING former.lml_release
),
raised AS (
    UPDATE listener.ledger AS g
    SET next_ask_at = now(),
        parked = false
    WHERE g.failures > 0
        AND g.next_ask_at > now()
        AND (g.next_ask_at = 'infinity' OR EXISTS (SELECT FROM noted AS n WHERE n.lml_release IS NOT NULL))
    RETURNING g.library_id
)
SELECT count(*) AS raised
FROM raised

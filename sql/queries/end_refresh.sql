-- Writes down that a refresh call ended, and what it came to.
UPDATE listener.refresh AS r
SET ended_at = clock_timestamp(),
    cost = %(cost)s,
    answered = %(answered)s
WHERE r.refresh_id = %(refresh_id)s

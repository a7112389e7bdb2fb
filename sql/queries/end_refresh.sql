-- Records the end of a refresh call, and what it cost.
UPDATE listener.refresh AS r
SET ended_at = clock_timestamp(),
    cost = %(cost)s,
    answered = %(answered)s
WHERE r.refresh_id = %(refresh_id)s

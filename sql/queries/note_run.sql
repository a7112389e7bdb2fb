-- Records how far a run is, and how it ended if it did.
UPDATE listener.run AS r
SET seen_at = now(),
    tally = %(tally)s,
    ended_at = CASE WHEN %(outcome)s::text IS NOT NULL THEN now() END,
    outcome = %(outcome)s,
    reason = %(reason)s
WHERE r.run_id = %(run_id)s

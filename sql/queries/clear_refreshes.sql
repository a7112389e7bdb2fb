-- Deletes refresh calls that no longer count towards the budget or the learned cost, and those whose process died long
-- ago.
DELETE FROM listener.refresh AS r
WHERE r.ended_at < now() - %(recent)s::interval
    OR r.ended_at = 'infinity' AND r.started_at < now() - %(recent)s::interval

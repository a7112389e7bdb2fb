-- Forgets refresh calls that neither count nor teach any more, and those whose process died long ago.
DELETE FROM listener.refresh AS r
WHERE r.ended_at < now() - %(recent)s::interval
    OR r.ended_at = 'infinity' AND r.started_at < now() - %(recent)s::interval

-- Deletes old runs.
DELETE FROM listener.run AS r
WHERE r.started_at < now() - %(keep)s::interval

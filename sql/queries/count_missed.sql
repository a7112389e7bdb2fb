-- Counts the rows of the last day that had changed without a change in the outbox.
SELECT coalesce(sum((r.tally ->> 'capture_missed')::bigint), 0)::bigint AS capture_missed
FROM listener.run AS r
WHERE r.started_at > now() - interval '1 day'

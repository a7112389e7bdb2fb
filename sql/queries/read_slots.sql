-- Reads the last scheduled time of each job, and the next one.
SELECT
    s.job,
    s.slot,
    s.next_at,
    s.done,
    s.holder
FROM listener.slot AS s
ORDER BY s.next_at, s.job

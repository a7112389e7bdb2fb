-- Marks the slot that we took of a job as done.
UPDATE listener.slot AS s
SET done = true
WHERE s.job = %(job)s
    AND s.holder = %(holder)s
    AND s.slot = %(slot)s

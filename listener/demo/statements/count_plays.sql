-- Counts one play of some releases.
UPDATE {backend}.library
SET plays = plays + 1,
    last_modified = now()
WHERE id = ANY (%(ids)s::int[]);

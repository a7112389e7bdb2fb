-- Reads who follows each stream.
SELECT l.holder
FROM listener.lane AS l
ORDER BY l.stream;

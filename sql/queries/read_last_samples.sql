-- Reads the last word of whoever follows each stream, unless it is long past.
SELECT DISTINCT ON (s.stream)
    s.stream,
    s.oldest,
    s.silent > 0 AS silent,
    s.woken
FROM listener.sample AS s
WHERE s.at > now() - interval '30 seconds'
ORDER BY s.stream, s.at DESC

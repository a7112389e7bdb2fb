-- Reads the last word of whoever follows each stream, unless it is long past.
SELECT DISTINCT ON (s.stream)
    s.stream,
    s.oldest,
    date_part('epoch', now() - s.at) AS age,
    s.woken
FROM listener.sample AS s
WHERE s.at > now() - interval '30 seconds'
ORDER BY s.stream, s.at DESC

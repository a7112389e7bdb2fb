-- Reads whether wake-ups arrived at the follower of each stream, unless it last said so long ago.
SELECT DISTINCT ON (s.stream)
    s.stream,
    s.woken
FROM listener.sample AS s
WHERE s.at > now() - interval '30 seconds'
ORDER BY s.stream, s.at DESC

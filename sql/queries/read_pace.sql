-- Returns the average duration of a call to LML in the latest runs that made any, in milliseconds.
SELECT sum((r.tally ->> 'lml_total_latency_ms')::float8) / sum((r.tally ->> 'lml_total_calls')::float8) AS pace
FROM (
    SELECT n.tally
    FROM listener.run AS n
    WHERE n.tally ->> 'lml_total_calls' <> '0'
    ORDER BY n.started_at DESC
    LIMIT 10
) AS r

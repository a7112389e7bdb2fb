-- Names the sequences that are behind the rows drawn from them, as a logical copy of the rows leaves them, and brings
-- them up to these if asked to. One that the role may not look at is left out: its position is unknown.
SELECT
    'listener.' || drawn.name AS name,
    CASE WHEN %(raising)s THEN setval(s.thing, drawn.highest) END AS position
FROM (
    SELECT 'ask_order' AS name, (SELECT max(g.ask_order) FROM listener.ledger AS g) AS highest
    UNION ALL
    SELECT 'change_seq_seq', (SELECT max(c.seq) FROM listener.change AS c)
    UNION ALL
    SELECT 'run_run_id_seq', (SELECT max(r.run_id) FROM listener.run AS r)
    UNION ALL
    SELECT 'refresh_refresh_id_seq', (SELECT max(r.refresh_id) FROM listener.refresh AS r)
    UNION ALL
    SELECT 'sample_sample_id_seq', (SELECT max(s.sample_id) FROM listener.sample AS s)
) AS drawn
CROSS JOIN LATERAL (SELECT format('listener.%%I', drawn.name)::regclass AS thing) AS s
INNER JOIN pg_sequences AS q ON q.schemaname = 'listener' AND q.sequencename = drawn.name
WHERE has_sequence_privilege(s.thing, 'USAGE, SELECT')
    AND drawn.highest > coalesce(q.last_value, 0)

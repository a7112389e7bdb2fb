-- Counts the library's rows by their state in the ledger and by the age of the answer in days (7 stands for 7 or
-- more), and how many of each a search by time would find.
SELECT
    r.state,
    r.days,
    count(*) AS found,
    count(*) FILTER (WHERE r.due) AS due
FROM (
    SELECT
        CASE
            WHEN l.artist_name IS NULL THEN 'nameless'
            WHEN g.failures > 0 AND g.parked THEN 'parked'
            WHEN g.failures > 0 THEN 'failed'
            WHEN g.outcome = 'single_artist' THEN 'resolved'
            ELSE coalesce(g.outcome, 'never')
        END AS state,
        CASE
            WHEN l.artist_name IS NOT NULL AND g.answered_at IS NOT NULL THEN greatest(
                0, least(7, floor(date_part('epoch', now() - g.answered_at) / 86400)::int)
            )
        END AS days,
        l.artist_name IS NOT NULL
            AND g.next_ask_at <= now()
            AND (%(include_null_canonical)s OR l.canonical_entity_id IS NOT NULL OR g.failures > 0) AS due
    FROM {backend}.library AS l
    LEFT JOIN listener.ledger AS g ON g.library_id = l.id
) AS r
GROUP BY r.state, r.days

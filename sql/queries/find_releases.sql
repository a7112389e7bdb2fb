-- Finds releases whose artist and title hold all of the given words, case and accents folded; those first in which every
-- word stands at the start of one, then the shortest. Only names that are not plain ASCII need their accents folded.
SELECT
    l.id AS library_id,
    l.artist_name,
    l.album_title,
    g.outcome,
    g.answered_at,
    coalesce(g.failures, 0) AS failures,
    coalesce(g.failures > 0 AND g.parked, false) AS parked,
    g.next_ask_at,
    EXISTS (SELECT FROM listener.change AS c WHERE c.stream = 'library' AND c.row_id = l.id) AS waiting
FROM {backend}.library AS l
CROSS JOIN LATERAL (
    SELECT lower(CASE
        WHEN coalesce(l.artist_name, '') || ' ' || l.album_title ~ '[^ -~]'
            THEN regexp_replace(
                normalize(coalesce(l.artist_name, '') || ' ' || l.album_title, NFKD), '[\u0300-\u036f]', '', 'g'
            )
        ELSE coalesce(l.artist_name, '') || ' ' || l.album_title
    END) AS names
) AS n
LEFT JOIN listener.ledger AS g ON g.library_id = l.id
WHERE n.names LIKE %(longest)s
    AND n.names LIKE ALL (%(parts)s::text[])
ORDER BY
    ' ' || n.names LIKE ALL (%(starts)s::text[]) DESC,
    length(n.names),
    n.names,
    l.id
LIMIT %(limit)s

-- Finds releases whose artist and title contain all given words, ignoring case and accents. First come those in which
-- every word starts a word, then the shortest. Only names that are not plain ASCII need their accents folded. Folding
-- is what costs: OFFSET 0 keeps the folded names, and a word that no index can look up is searched only in these.
WITH best AS (
    SELECT
        m.id,
        m.artist_name,
        m.album_title,
        m.names,
        ' ' || m.names LIKE ALL (%(starts)s::text[]) AS begun
    FROM (
        SELECT
            l.id,
            l.artist_name,
            l.album_title,
            n.names
        FROM {backend}.library AS l
        CROSS JOIN LATERAL (
            SELECT lower(CASE
                WHEN octet_length(coalesce(l.artist_name, '') || ' ' || l.album_title)
                    > length(coalesce(l.artist_name, '') || ' ' || l.album_title) THEN regexp_replace(
                        normalize(coalesce(l.artist_name, '') || ' ' || l.album_title, NFKD), '[\u0300-\u036f]', '', 'g'
                    )
                ELSE coalesce(l.artist_name, '') || ' ' || l.album_title
            END) AS names
        ) AS n
        WHERE %(indexed)s::text IS NULL OR n.names LIKE %(indexed)s
        OFFSET 0
    ) AS m
    WHERE m.names LIKE ALL (%(words)s::text[])
    ORDER BY
        begun DESC,
        length(m.names),
        m.names,
        m.id
    LIMIT %(limit)s
)
SELECT
    b.id AS library_id,
    b.artist_name,
    b.album_title,
    g.outcome,
    g.answered_at,
    coalesce(g.failures, 0) AS failures,
    coalesce(g.failures > 0 AND g.parked, false) AS parked,
    g.next_ask_at,
    EXISTS (SELECT FROM listener.change AS c WHERE c.stream = 'library' AND c.row_id = b.id) AS waiting
FROM best AS b
LEFT JOIN listener.ledger AS g ON g.library_id = b.id
ORDER BY
    b.begun DESC,
    length(b.names),
    b.names,
    b.id
